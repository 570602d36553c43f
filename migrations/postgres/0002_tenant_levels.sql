-- How many VNFCIs of a tenant are registered and not ended: a quota is held against it, and counting them would cost a walk
-- over all. Kept by triggers, in stripes as pool_levels is: no statement can forget it, and brokers of the version before,
-- which know nothing of it, count while a rolling upgrade lasts.
CREATE TABLE tenant_levels (
    tenant TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    stripe BIGINT NOT NULL,
    vnfcis BIGINT NOT NULL,
    PRIMARY KEY (tenant, stripe)
) WITH (fillfactor = 30, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

CREATE FUNCTION count_registered_vnfcis() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenant_levels (tenant, stripe, vnfcis)
        SELECT tenant, pg_backend_pid(), COUNT(*) FROM inserted WHERE state IN ('REGISTERED', 'ACTIVE') GROUP BY tenant
        ON CONFLICT (tenant, stripe) DO UPDATE SET vnfcis = tenant_levels.vnfcis + excluded.vnfcis;
    RETURN NULL;
END
$$;

CREATE TRIGGER vnfcis_registered AFTER INSERT ON vnfcis
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION count_registered_vnfcis();

CREATE FUNCTION count_changed_vnfcis() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenant_levels (tenant, stripe, vnfcis)
        SELECT tenant, pg_backend_pid(), SUM(vnfcis) FROM (
            SELECT tenant, -1 AS vnfcis FROM before WHERE state IN ('REGISTERED', 'ACTIVE')
            UNION ALL
            SELECT tenant, 1 FROM after WHERE state IN ('REGISTERED', 'ACTIVE')
        ) AS changed GROUP BY tenant HAVING SUM(vnfcis) <> 0
        ON CONFLICT (tenant, stripe) DO UPDATE SET vnfcis = tenant_levels.vnfcis + excluded.vnfcis;
    RETURN NULL;
END
$$;

CREATE TRIGGER vnfcis_changed AFTER UPDATE ON vnfcis
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION count_changed_vnfcis();

-- Only now: the triggers' making waits for every change of a VNFCI that was begun, and keeps others off until this commits.
INSERT INTO tenant_levels (tenant, stripe, vnfcis)
    SELECT tenant, 0, COUNT(*) FROM vnfcis WHERE state IN ('REGISTERED', 'ACTIVE') GROUP BY tenant;

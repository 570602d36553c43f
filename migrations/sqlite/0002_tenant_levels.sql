-- How many VNFCIs of a tenant are registered and not ended: a quota is held against it, and counting them would cost a walk
-- over all. Kept by triggers as pool_levels is: no statement can forget it.
CREATE TABLE tenant_levels (
    tenant TEXT   NOT NULL REFERENCES tenants (id),
    stripe BIGINT NOT NULL,
    vnfcis BIGINT NOT NULL CHECK (vnfcis >= 0),
    PRIMARY KEY (tenant, stripe)
) WITHOUT ROWID;

INSERT INTO tenant_levels (tenant, stripe, vnfcis)
    SELECT tenant, 0, COUNT(*) FROM vnfcis WHERE state IN ('REGISTERED', 'ACTIVE') GROUP BY tenant;

CREATE TRIGGER vnfcis_registered AFTER INSERT ON vnfcis WHEN new.state IN ('REGISTERED', 'ACTIVE') BEGIN
    INSERT INTO tenant_levels (tenant, stripe, vnfcis) VALUES (new.tenant, 0, 1)
        ON CONFLICT (tenant, stripe) DO UPDATE SET vnfcis = vnfcis + 1;
END;

CREATE TRIGGER vnfcis_ended AFTER UPDATE OF state ON vnfcis
WHEN old.state IN ('REGISTERED', 'ACTIVE') AND new.state NOT IN ('REGISTERED', 'ACTIVE') BEGIN
    UPDATE tenant_levels SET vnfcis = vnfcis - 1 WHERE tenant = new.tenant;
END;

CREATE TRIGGER vnfcis_returned AFTER UPDATE OF state ON vnfcis
WHEN old.state NOT IN ('REGISTERED', 'ACTIVE') AND new.state IN ('REGISTERED', 'ACTIVE') BEGIN
    INSERT INTO tenant_levels (tenant, stripe, vnfcis) VALUES (new.tenant, 0, 1)
        ON CONFLICT (tenant, stripe) DO UPDATE SET vnfcis = vnfcis + 1;
END;

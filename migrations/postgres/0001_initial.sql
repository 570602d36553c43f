-- keybroker's tables in PostgreSQL: those of migrations/sqlite, with the same names. docs/schema.md explains every column,
-- unit, state and index.
--
-- Times are BIGINT microseconds since 1970-01-01T00:00:00Z, identifiers 16-byte BYTEAs (UUID version 7: they sort by the
-- time they were made), hashes 32-byte BYTEAs (SHA-256), certificates DER, states fixed texts. Texts sort by their bytes,
-- whatever the database's collation: the pages of a list go on where the last one ended, on every server.

CREATE TABLE tenants (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    created_at BIGINT NOT NULL,
    removed_at BIGINT
);

CREATE TABLE anchors (
    tenant          TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    name            TEXT COLLATE "C" NOT NULL,
    certificate_der BYTEA NOT NULL,
    fingerprint     BYTEA NOT NULL,
    public_key      BYTEA NOT NULL,
    revocation      TEXT COLLATE "C" NOT NULL,
    policies        TEXT COLLATE "C" NOT NULL,
    strict          BIGINT NOT NULL,
    created_at      BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);
CREATE UNIQUE INDEX anchors_fingerprint ON anchors (fingerprint);
CREATE UNIQUE INDEX anchors_public_key ON anchors (public_key);

CREATE TABLE anchor_crls (
    tenant      TEXT COLLATE "C" NOT NULL,
    anchor      TEXT COLLATE "C" NOT NULL,
    fingerprint BYTEA NOT NULL,
    der         BYTEA NOT NULL,
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant, anchor, fingerprint),
    FOREIGN KEY (tenant, anchor) REFERENCES anchors (tenant, name)
);
CREATE INDEX anchor_crls_fingerprint ON anchor_crls (fingerprint);

CREATE TABLE identities (
    name            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    role            TEXT COLLATE "C" NOT NULL,
    tenant          TEXT COLLATE "C" REFERENCES tenants (id),
    granted_vnfs    TEXT COLLATE "C" NOT NULL,
    certificate_der BYTEA NOT NULL,
    fingerprint     BYTEA NOT NULL,
    created_at      BIGINT NOT NULL
);
CREATE UNIQUE INDEX identities_fingerprint ON identities (fingerprint);

CREATE TABLE issuers (
    id              BYTEA NOT NULL PRIMARY KEY,
    tenant          TEXT COLLATE "C",
    name            TEXT COLLATE "C" NOT NULL,
    external        TEXT COLLATE "C",
    generation      BIGINT NOT NULL,
    key_object      TEXT COLLATE "C" NOT NULL,
    certificate_der BYTEA NOT NULL,
    chain_der       TEXT COLLATE "C" NOT NULL,
    created_at      BIGINT NOT NULL
);
-- A root has no tenant, an own CA no external issuer; NULLs never collide in a unique index, so the empty text (nobody's name)
-- stands in.
CREATE UNIQUE INDEX issuers_generation ON issuers (COALESCE(tenant, ''), COALESCE(external, ''), generation);

CREATE TABLE pools (
    id           BYTEA NOT NULL PRIMARY KEY,
    tenant       TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    name         TEXT COLLATE "C" NOT NULL,
    vnf_instance TEXT COLLATE "C" NOT NULL,
    vdu          TEXT COLLATE "C" NOT NULL,
    profile      TEXT COLLATE "C" NOT NULL,
    target       BIGINT NOT NULL,
    refill_below BIGINT NOT NULL,
    issue        TEXT COLLATE "C" NOT NULL CHECK (issue IN ('ahead', 'at_claim')),
    created_at   BIGINT NOT NULL,
    deleted_at   BIGINT
);
CREATE UNIQUE INDEX pools_name ON pools (tenant, name) WHERE deleted_at IS NULL;

CREATE TABLE epochs (
    id               BYTEA NOT NULL PRIMARY KEY,
    tenant           TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    state            TEXT COLLATE "C" NOT NULL
        CHECK (state IN ('CREATING', 'OPEN', 'CLOSED', 'SHREDDING', 'DESTROYED')),
    created_at       BIGINT NOT NULL,
    first_erasure_at BIGINT,
    destroyed_at     BIGINT,
    token_serial     TEXT COLLATE "C"
);
CREATE UNIQUE INDEX epochs_one_open ON epochs (tenant) WHERE state IN ('CREATING', 'OPEN');
CREATE INDEX epochs_state ON epochs (state, id);

CREATE TABLE vnfcis (
    tenant             TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    id                 TEXT COLLATE "C" NOT NULL,
    vnf_instance       TEXT COLLATE "C" NOT NULL,
    vdu                TEXT COLLATE "C" NOT NULL,
    state              TEXT COLLATE "C" NOT NULL CHECK (state IN ('REGISTERED', 'ACTIVE', 'RELEASED', 'TERMINATED')),
    initial_credential BYTEA NOT NULL,
    registered_at      BIGINT NOT NULL,
    ended_at           BIGINT,
    renewal_requested_at BIGINT,
    PRIMARY KEY (tenant, id)
);

CREATE INDEX vnfcis_vnf_instance ON vnfcis (tenant, vnf_instance, state);

CREATE TABLE slots (
    tenant    TEXT COLLATE "C" NOT NULL,
    vnfci     TEXT COLLATE "C" NOT NULL,
    name      TEXT COLLATE "C" NOT NULL,
    pool      BYTEA NOT NULL REFERENCES pools (id),
    pool_name TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, vnfci, name),
    FOREIGN KEY (tenant, vnfci) REFERENCES vnfcis (tenant, id)
);
CREATE INDEX slots_pool ON slots (pool);

CREATE TABLE initial_credentials (
    id           BYTEA NOT NULL PRIMARY KEY,
    tenant       TEXT COLLATE "C" NOT NULL,
    vnf_instance TEXT COLLATE "C" NOT NULL,
    vnfci        TEXT COLLATE "C" NOT NULL,
    generation   BIGINT NOT NULL,
    kind         TEXT COLLATE "C" NOT NULL CHECK (kind IN ('X509_FINGERPRINT', 'X509_NAME', 'TOKEN')),
    anchor       TEXT COLLATE "C",
    fingerprint  BYTEA,
    name         TEXT COLLATE "C",
    state        TEXT COLLATE "C" NOT NULL CHECK (state IN ('OPEN', 'SPENT', 'VOID')),
    redraws      BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    FOREIGN KEY (tenant, vnfci) REFERENCES vnfcis (tenant, id)
);
CREATE UNIQUE INDEX initial_credentials_generation ON initial_credentials (tenant, vnfci, generation);
CREATE INDEX initial_credentials_fingerprint ON initial_credentials (tenant, anchor, fingerprint)
    WHERE fingerprint IS NOT NULL;
CREATE INDEX initial_credentials_name ON initial_credentials (tenant, anchor, name) WHERE name IS NOT NULL;
CREATE UNIQUE INDEX initial_credentials_one_open_fingerprint
    ON initial_credentials (tenant, anchor, fingerprint) WHERE state = 'OPEN' AND fingerprint IS NOT NULL;
CREATE UNIQUE INDEX initial_credentials_one_open_name
    ON initial_credentials (tenant, anchor, name) WHERE state = 'OPEN' AND name IS NOT NULL;

CREATE TABLE claims (
    id                 BYTEA NOT NULL PRIMARY KEY,
    initial_credential BYTEA NOT NULL REFERENCES initial_credentials (id),
    renews             BYTEA REFERENCES claims (id),
    overlap            BIGINT,
    tenant             TEXT COLLATE "C" NOT NULL,
    vnf_instance       TEXT COLLATE "C" NOT NULL,
    vnfci              TEXT COLLATE "C" NOT NULL,
    request            BYTEA NOT NULL,
    recipient_key      BYTEA NOT NULL,
    state              TEXT COLLATE "C" NOT NULL
        CHECK (state IN ('OPEN', 'CONFIRMED', 'RENEWED', 'DESTROYED', 'RELEASED', 'SUPERSEDED')),
    deadline           BIGINT NOT NULL,
    created_at         BIGINT NOT NULL,
    confirmed_at       BIGINT,
    overlap_ends_at    BIGINT,
    ended_at           BIGINT,
    CHECK ((renews IS NULL) = (overlap IS NULL)),
    CHECK (state <> 'RENEWED' OR overlap_ends_at IS NOT NULL)
);
CREATE UNIQUE INDEX claims_one_open ON claims (initial_credential) WHERE state = 'OPEN';
CREATE INDEX claims_deadline ON claims (deadline) WHERE state = 'OPEN';
CREATE INDEX claims_vnfci ON claims (tenant, vnfci);
CREATE INDEX claims_renews ON claims (renews) WHERE renews IS NOT NULL;
CREATE INDEX claims_overlap ON claims (overlap_ends_at) WHERE state = 'RENEWED';

CREATE TABLE credentials (
    id                  BYTEA NOT NULL PRIMARY KEY,
    tenant              TEXT COLLATE "C" NOT NULL,
    pool                BYTEA NOT NULL REFERENCES pools (id),
    epoch               BYTEA REFERENCES epochs (id),
    key_state           TEXT COLLATE "C" NOT NULL
        CHECK (key_state IN ('GENERATED', 'AVAILABLE', 'CLAIMED', 'DELIVERED', 'DESTROYED', 'EXTERNAL')),
    public_key_sha256   BYTEA NOT NULL,
    public_key_der      BYTEA NOT NULL,
    usable_until        BIGINT,
    created_at          BIGINT NOT NULL,
    claim_id            BYTEA REFERENCES claims (id),
    slot                TEXT COLLATE "C",
    claimed_at          BIGINT,
    erased_at           BIGINT,
    custody_ended_at    BIGINT,
    custody_reason      TEXT COLLATE "C",
    custody_holder_copy TEXT COLLATE "C",
    custody_revocation  TEXT COLLATE "C",
    receipt             TEXT COLLATE "C",
    -- A key without a copy at the broker is one that was erased, and the other way round.
    CHECK ((key_state IN ('DELIVERED', 'DESTROYED')) = (erased_at IS NOT NULL)),
    CHECK ((claim_id IS NULL) = (slot IS NULL)),
    -- A key that was made elsewhere was never wrapped here.
    CHECK ((key_state = 'EXTERNAL') = (epoch IS NULL))
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.02);
CREATE UNIQUE INDEX credentials_public_key ON credentials (public_key_sha256);
CREATE UNIQUE INDEX credentials_claim_slot ON credentials (claim_id, slot) WHERE claim_id IS NOT NULL;
CREATE INDEX credentials_draw ON credentials (pool, epoch, id, usable_until) WHERE key_state = 'AVAILABLE';
CREATE INDEX credentials_draw_uncertified ON credentials (pool, epoch, id) WHERE key_state = 'GENERATED';
-- These two not by key_state: else PostgreSQL may draw by them, and sort the pool or walk over the keys of every other one.
CREATE INDEX credentials_unclaimed ON credentials (pool, usable_until)
    WHERE claim_id IS NULL AND erased_at IS NULL;
CREATE INDEX credentials_live ON credentials (epoch, id) WHERE erased_at IS NULL;
CREATE INDEX credentials_receipt_due ON credentials (custody_ended_at)
    WHERE custody_ended_at IS NOT NULL AND claim_id IS NOT NULL AND receipt IS NULL;

-- Counts that would cost a walk over the pool or the epoch. Kept by triggers: no statement can forget them. A count is
-- the sum over its stripes. Each connection (backend) writes to a stripe of its own, so that no two transactions ever wait
-- for each other over a count; folding adds the stripes of connections that ended to stripe 0.
CREATE TABLE pool_levels (
    pool      BYTEA NOT NULL REFERENCES pools (id),
    key_state TEXT COLLATE "C" NOT NULL,
    stripe    BIGINT NOT NULL,
    keys      BIGINT NOT NULL,
    PRIMARY KEY (pool, key_state, stripe)
) WITH (fillfactor = 30, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

CREATE TABLE epoch_levels (
    epoch    BYTEA NOT NULL REFERENCES epochs (id),
    stripe   BIGINT NOT NULL,
    inserted BIGINT NOT NULL,
    live     BIGINT NOT NULL,
    PRIMARY KEY (epoch, stripe)
) WITH (fillfactor = 30, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

CREATE FUNCTION count_inserted_credentials() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pool_levels (pool, key_state, stripe, keys)
        SELECT pool, key_state, pg_backend_pid(), COUNT(*) FROM inserted GROUP BY pool, key_state
        ON CONFLICT (pool, key_state, stripe) DO UPDATE SET keys = pool_levels.keys + excluded.keys;
    INSERT INTO epoch_levels (epoch, stripe, inserted, live)
        SELECT epoch, pg_backend_pid(), COUNT(*), COUNT(*) FROM inserted WHERE epoch IS NOT NULL GROUP BY epoch
        ON CONFLICT (epoch, stripe) DO UPDATE SET
            inserted = epoch_levels.inserted + excluded.inserted, live = epoch_levels.live + excluded.live;
    RETURN NULL;
END
$$;

CREATE TRIGGER credentials_inserted AFTER INSERT ON credentials
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION count_inserted_credentials();

CREATE FUNCTION count_changed_credentials() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pool_levels (pool, key_state, stripe, keys)
        SELECT pool, key_state, pg_backend_pid(), SUM(keys) FROM (
            SELECT o.pool, o.key_state, -1 AS keys FROM before o JOIN after n USING (id) WHERE o.key_state <> n.key_state
            UNION ALL
            SELECT n.pool, n.key_state, 1 FROM before o JOIN after n USING (id) WHERE o.key_state <> n.key_state
            UNION ALL
            SELECT n.pool, 'DRAWN', 1 FROM before o JOIN after n USING (id)
            WHERE n.key_state = 'CLAIMED' AND o.key_state <> 'CLAIMED'
        ) AS changed GROUP BY pool, key_state
        ON CONFLICT (pool, key_state, stripe) DO UPDATE SET keys = pool_levels.keys + excluded.keys;
    INSERT INTO epoch_levels (epoch, stripe, inserted, live)
        SELECT epoch, pg_backend_pid(), SUM(inserted), SUM(live) FROM (
            SELECT o.epoch, 0 AS inserted, -1 AS live FROM before o JOIN after n USING (id)
            WHERE o.epoch <> n.epoch
                OR (o.epoch IS NOT NULL AND o.erased_at IS NULL AND n.erased_at IS NOT NULL)
            UNION ALL
            SELECT n.epoch, 1, 1 FROM before o JOIN after n USING (id) WHERE o.epoch <> n.epoch
        ) AS changed GROUP BY epoch
        ON CONFLICT (epoch, stripe) DO UPDATE SET
            inserted = epoch_levels.inserted + excluded.inserted, live = epoch_levels.live + excluded.live;
    RETURN NULL;
END
$$;

CREATE TRIGGER credentials_changed AFTER UPDATE ON credentials
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION count_changed_credentials();

CREATE TABLE key_blobs (
    credential BYTEA NOT NULL PRIMARY KEY REFERENCES credentials (id),
    key_blob   BYTEA NOT NULL,
    dek_blob   BYTEA NOT NULL
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.02);

CREATE TABLE certificate_requests (
    credential BYTEA NOT NULL PRIMARY KEY REFERENCES credentials (id),
    der        BYTEA NOT NULL,
    basis      BYTEA NOT NULL
);

CREATE FUNCTION forget_certificate_request() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM certificate_requests WHERE credential = NEW.id;
    RETURN NULL;
END
$$;

CREATE TRIGGER credentials_answered AFTER UPDATE OF key_state ON credentials FOR EACH ROW
    WHEN (OLD.key_state = 'GENERATED' AND NEW.key_state <> 'GENERATED')
    EXECUTE FUNCTION forget_certificate_request();

CREATE TABLE key_epochs (
    credential BYTEA NOT NULL REFERENCES credentials (id),
    epoch      BYTEA NOT NULL REFERENCES epochs (id),
    PRIMARY KEY (credential, epoch)
);

CREATE TABLE certificates (
    id           BIGINT NOT NULL PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY,
    credential   BYTEA NOT NULL REFERENCES credentials (id),
    -- A key that was made here has one certificate; a holder's own key may be certified again.
    turn         BIGINT NOT NULL DEFAULT 0,
    issuer       BYTEA NOT NULL REFERENCES issuers (id),
    serial       BYTEA NOT NULL,
    sha256       BYTEA,
    der          BYTEA,
    tbs_der      BYTEA,
    state        TEXT COLLATE "C" NOT NULL
        CHECK (state IN ('VALID', 'SUPERSEDED', 'REVOCATION_PENDING', 'REVOKED', 'EXPIRED')),
    not_before   BIGINT NOT NULL,
    not_after    BIGINT NOT NULL,
    usable_until BIGINT NOT NULL,
    revoked_at   BIGINT,
    reason       TEXT COLLATE "C",
    crl_shard    BIGINT NOT NULL,
    -- Signed, or recorded to be signed: an intent counts as issued until it is.
    CHECK ((der IS NULL) = (tbs_der IS NOT NULL)),
    CHECK ((der IS NULL) = (sha256 IS NULL))
);
CREATE UNIQUE INDEX certificates_serial ON certificates (issuer, serial);
CREATE UNIQUE INDEX certificates_sha256 ON certificates (sha256);
CREATE UNIQUE INDEX certificates_credential ON certificates (credential, turn);
CREATE INDEX certificates_pending ON certificates (issuer) WHERE state = 'REVOCATION_PENDING';
CREATE INDEX certificates_revoked ON certificates (issuer, not_after) WHERE state = 'REVOKED';
CREATE INDEX certificates_expiry ON certificates (not_after) WHERE state IN ('VALID', 'SUPERSEDED');

CREATE TABLE crls (
    issuer      BYTEA NOT NULL REFERENCES issuers (id),
    shard       BIGINT NOT NULL,
    number      BIGINT NOT NULL,
    entries     BIGINT NOT NULL,
    der         BYTEA NOT NULL,
    this_update BIGINT NOT NULL,
    next_update BIGINT NOT NULL,
    PRIMARY KEY (issuer, shard)
);

CREATE TABLE ocsp_responders (
    issuer          BYTEA NOT NULL PRIMARY KEY REFERENCES issuers (id),
    key_object      TEXT COLLATE "C" NOT NULL,
    certificate_der BYTEA NOT NULL,
    created_at      BIGINT NOT NULL
);

CREATE TABLE revoked_serials (
    issuer     BYTEA NOT NULL REFERENCES issuers (id),
    serial     BYTEA NOT NULL,
    not_after  BIGINT NOT NULL,
    revoked_at BIGINT NOT NULL,
    reason     TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (issuer, serial)
);

-- Events are chained in the order of their transactions' numbers, then of their own. An event is settled once no
-- transaction with a smaller or the same number can still commit one: numbers are given out when a transaction begins to
-- write, not when it commits, so that looking at the numbers alone could pass over one.
--
-- What is added to the transactions' numbers: they begin anew when a dump is restored to another server.
CREATE FUNCTION event_base() RETURNS BIGINT LANGUAGE sql STABLE AS $$ SELECT CAST(0 AS BIGINT) $$;

-- Events of transactions with a smaller number are settled. Transactions of other databases of the server do not count.
CREATE FUNCTION settled_before() RETURNS BIGINT LANGUAGE sql STABLE AS $$
    SELECT event_base() + COALESCE(
        (SELECT MIN(CAST(CAST(running AS TEXT) AS BIGINT))
         FROM pg_snapshot_xip(pg_current_snapshot()) AS running
         WHERE NOT EXISTS (
             SELECT 1 FROM pg_stat_activity AS a WHERE a.backend_xid = CAST(running AS xid)
             AND a.datid <> (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()))),
        CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS TEXT) AS BIGINT))
$$;

CREATE TABLE events (
    seq          BIGINT NOT NULL PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY,
    id           BYTEA NOT NULL,
    time         BIGINT NOT NULL,
    kind         TEXT COLLATE "C" NOT NULL,
    actor        TEXT COLLATE "C" NOT NULL,
    tenant       TEXT COLLATE "C",
    vnf_instance TEXT COLLATE "C",
    vnfci        TEXT COLLATE "C",
    json         TEXT COLLATE "C" NOT NULL,
    xact         BIGINT NOT NULL DEFAULT event_base() + CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT)
);
CREATE UNIQUE INDEX events_id ON events (id);
CREATE INDEX events_xact ON events (xact, seq);
CREATE INDEX events_vnfci ON events (vnfci, seq) WHERE vnfci IS NOT NULL;

CREATE TABLE event_credentials (
    public_key BYTEA NOT NULL,
    event_id   BYTEA NOT NULL REFERENCES events (id),
    PRIMARY KEY (public_key, event_id)
);

CREATE TABLE audit_chain (
    idx      BIGINT NOT NULL PRIMARY KEY,
    event_id BYTEA NOT NULL REFERENCES events (id),
    hash     BYTEA NOT NULL
);
CREATE UNIQUE INDEX audit_chain_event ON audit_chain (event_id);

CREATE TABLE heads (
    size        BIGINT NOT NULL PRIMARY KEY,
    signed_head TEXT COLLATE "C" NOT NULL,
    created_at  BIGINT NOT NULL
);

CREATE TABLE leases (
    name       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    holder     TEXT COLLATE "C" NOT NULL,
    fence      BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE TABLE marks (
    name  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL
);

CREATE TABLE requests (
    caller     TEXT COLLATE "C" NOT NULL,
    request_id BYTEA NOT NULL,
    body       BYTEA NOT NULL,
    outcome    TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    PRIMARY KEY (caller, request_id)
);
CREATE INDEX requests_created ON requests (created_at);

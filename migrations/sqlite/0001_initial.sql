-- keybroker's tables. docs/schema.md explains every column, unit, state and index.
--
-- Times are BIGINT microseconds since 1970-01-01T00:00:00Z, identifiers 16-byte BLOBs (UUID version 7: they
-- sort by the time they were made), hashes 32-byte BLOBs (SHA-256), certificates DER, states fixed texts.

CREATE TABLE tenants (
    id         TEXT   NOT NULL PRIMARY KEY,
    created_at BIGINT NOT NULL,
    removed_at BIGINT
) WITHOUT ROWID;

CREATE TABLE anchors (
    tenant          TEXT   NOT NULL REFERENCES tenants (id),
    name            TEXT   NOT NULL,
    certificate_der BLOB   NOT NULL,
    fingerprint     BLOB   NOT NULL,
    public_key      BLOB   NOT NULL,
    revocation      TEXT   NOT NULL,
    policies        TEXT   NOT NULL,
    strict          BIGINT NOT NULL,
    created_at      BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);
CREATE UNIQUE INDEX anchors_fingerprint ON anchors (fingerprint);
CREATE UNIQUE INDEX anchors_public_key ON anchors (public_key);

CREATE TABLE anchor_crls (
    tenant      TEXT   NOT NULL,
    anchor      TEXT   NOT NULL,
    fingerprint BLOB   NOT NULL,
    der         BLOB   NOT NULL,
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant, anchor, fingerprint),
    FOREIGN KEY (tenant, anchor) REFERENCES anchors (tenant, name)
);
CREATE INDEX anchor_crls_fingerprint ON anchor_crls (fingerprint);

CREATE TABLE identities (
    name            TEXT   NOT NULL PRIMARY KEY,
    role            TEXT   NOT NULL,
    tenant          TEXT REFERENCES tenants (id),
    granted_vnfs    TEXT   NOT NULL,
    certificate_der BLOB   NOT NULL,
    fingerprint     BLOB   NOT NULL,
    created_at      BIGINT NOT NULL
);
CREATE UNIQUE INDEX identities_fingerprint ON identities (fingerprint);

CREATE TABLE issuers (
    id              BLOB    NOT NULL PRIMARY KEY,
    tenant          TEXT,
    name            TEXT    NOT NULL,
    external        TEXT,
    generation      INTEGER NOT NULL,
    key_object      TEXT    NOT NULL,
    certificate_der BLOB    NOT NULL,
    chain_der       TEXT    NOT NULL,
    created_at      BIGINT  NOT NULL
);
-- A root has no tenant, an own CA no external issuer; NULLs never collide in a unique index, so the empty text (nobody's name)
-- stands in.
CREATE UNIQUE INDEX issuers_generation ON issuers (COALESCE(tenant, ''), COALESCE(external, ''), generation);

CREATE TABLE pools (
    id           BLOB    NOT NULL PRIMARY KEY,
    tenant       TEXT    NOT NULL REFERENCES tenants (id),
    name         TEXT    NOT NULL,
    vnf_instance TEXT    NOT NULL,
    vdu          TEXT    NOT NULL,
    profile      TEXT    NOT NULL,
    target       INTEGER NOT NULL,
    refill_below INTEGER NOT NULL,
    issue        TEXT    NOT NULL CHECK (issue IN ('ahead', 'at_claim')),
    created_at   BIGINT  NOT NULL,
    deleted_at   BIGINT
);
CREATE UNIQUE INDEX pools_name ON pools (tenant, name) WHERE deleted_at IS NULL;

CREATE TABLE epochs (
    id               BLOB   NOT NULL PRIMARY KEY,
    tenant           TEXT   NOT NULL REFERENCES tenants (id),
    state            TEXT   NOT NULL
        CHECK (state IN ('CREATING', 'OPEN', 'CLOSED', 'SHREDDING', 'DESTROYED')),
    created_at       BIGINT NOT NULL,
    first_erasure_at BIGINT,
    destroyed_at     BIGINT,
    token_serial     TEXT
);
CREATE UNIQUE INDEX epochs_one_open ON epochs (tenant) WHERE state IN ('CREATING', 'OPEN');
CREATE INDEX epochs_state ON epochs (state, id);

CREATE TABLE vnfcis (
    tenant             TEXT   NOT NULL REFERENCES tenants (id),
    id                 TEXT   NOT NULL,
    vnf_instance       TEXT   NOT NULL,
    vdu                TEXT   NOT NULL,
    state              TEXT   NOT NULL CHECK (state IN ('REGISTERED', 'ACTIVE', 'RELEASED', 'TERMINATED')),
    initial_credential BLOB   NOT NULL,
    registered_at      BIGINT NOT NULL,
    ended_at           BIGINT,
    renewal_requested_at BIGINT,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;

CREATE INDEX vnfcis_vnf_instance ON vnfcis (tenant, vnf_instance, state);

CREATE TABLE slots (
    tenant    TEXT NOT NULL,
    vnfci     TEXT NOT NULL,
    name      TEXT NOT NULL,
    pool      BLOB NOT NULL REFERENCES pools (id),
    pool_name TEXT NOT NULL,
    PRIMARY KEY (tenant, vnfci, name),
    FOREIGN KEY (tenant, vnfci) REFERENCES vnfcis (tenant, id)
) WITHOUT ROWID;
CREATE INDEX slots_pool ON slots (pool);

CREATE TABLE initial_credentials (
    id           BLOB    NOT NULL PRIMARY KEY,
    tenant       TEXT    NOT NULL,
    vnf_instance TEXT    NOT NULL,
    vnfci        TEXT    NOT NULL,
    generation   INTEGER NOT NULL,
    kind         TEXT    NOT NULL CHECK (kind IN ('X509_FINGERPRINT', 'X509_NAME', 'TOKEN')),
    anchor       TEXT,
    fingerprint  BLOB,
    name         TEXT,
    state        TEXT    NOT NULL CHECK (state IN ('OPEN', 'SPENT', 'VOID')),
    redraws      INTEGER NOT NULL,
    expires_at   BIGINT  NOT NULL,
    created_at   BIGINT  NOT NULL,
    FOREIGN KEY (tenant, vnfci) REFERENCES vnfcis (tenant, id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX initial_credentials_generation ON initial_credentials (tenant, vnfci, generation);
CREATE INDEX initial_credentials_fingerprint ON initial_credentials (tenant, anchor, fingerprint)
    WHERE fingerprint IS NOT NULL;
CREATE INDEX initial_credentials_name ON initial_credentials (tenant, anchor, name) WHERE name IS NOT NULL;
CREATE UNIQUE INDEX initial_credentials_one_open_fingerprint
    ON initial_credentials (tenant, anchor, fingerprint) WHERE state = 'OPEN' AND fingerprint IS NOT NULL;
CREATE UNIQUE INDEX initial_credentials_one_open_name
    ON initial_credentials (tenant, anchor, name) WHERE state = 'OPEN' AND name IS NOT NULL;

CREATE TABLE claims (
    id                 BLOB   NOT NULL PRIMARY KEY,
    initial_credential BLOB   NOT NULL REFERENCES initial_credentials (id),
    renews             BLOB REFERENCES claims (id),
    overlap            BIGINT,
    tenant             TEXT   NOT NULL,
    vnf_instance       TEXT   NOT NULL,
    vnfci              TEXT   NOT NULL,
    request            BLOB   NOT NULL,
    recipient_key      BLOB   NOT NULL,
    state              TEXT   NOT NULL
        CHECK (state IN ('OPEN', 'CONFIRMED', 'RENEWED', 'DESTROYED', 'RELEASED', 'SUPERSEDED')),
    deadline           BIGINT NOT NULL,
    created_at         BIGINT NOT NULL,
    confirmed_at       BIGINT,
    overlap_ends_at    BIGINT,
    ended_at           BIGINT,
    CHECK ((renews IS NULL) = (overlap IS NULL)),
    CHECK (state <> 'RENEWED' OR overlap_ends_at IS NOT NULL)
) WITHOUT ROWID;
CREATE UNIQUE INDEX claims_one_open ON claims (initial_credential) WHERE state = 'OPEN';
CREATE INDEX claims_deadline ON claims (deadline) WHERE state = 'OPEN';
CREATE INDEX claims_vnfci ON claims (tenant, vnfci);
CREATE INDEX claims_renews ON claims (renews) WHERE renews IS NOT NULL;
CREATE INDEX claims_overlap ON claims (overlap_ends_at) WHERE state = 'RENEWED';

CREATE TABLE credentials (
    id                  BLOB   NOT NULL PRIMARY KEY,
    tenant              TEXT   NOT NULL,
    pool                BLOB   NOT NULL REFERENCES pools (id),
    epoch               BLOB REFERENCES epochs (id),
    key_state           TEXT   NOT NULL
        CHECK (key_state IN ('GENERATED', 'AVAILABLE', 'CLAIMED', 'DELIVERED', 'DESTROYED', 'EXTERNAL')),
    public_key_sha256   BLOB   NOT NULL,
    public_key_der      BLOB   NOT NULL,
    usable_until        BIGINT,
    created_at          BIGINT NOT NULL,
    claim_id            BLOB REFERENCES claims (id),
    slot                TEXT,
    claimed_at          BIGINT,
    erased_at           BIGINT,
    custody_ended_at    BIGINT,
    custody_reason      TEXT,
    custody_holder_copy TEXT,
    custody_revocation  TEXT,
    receipt             TEXT,
    -- A key without a copy at the broker is one that was erased, and the other way round.
    CHECK ((key_state IN ('DELIVERED', 'DESTROYED')) = (erased_at IS NOT NULL)),
    CHECK ((claim_id IS NULL) = (slot IS NULL)),
    -- A key that was made elsewhere was never wrapped here.
    CHECK ((key_state = 'EXTERNAL') = (epoch IS NULL))
) WITHOUT ROWID;
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
-- the sum over its stripes; with one writer there is one.
CREATE TABLE pool_levels (
    pool      BLOB   NOT NULL REFERENCES pools (id),
    key_state TEXT   NOT NULL,
    stripe    BIGINT NOT NULL,
    keys      BIGINT NOT NULL CHECK (keys >= 0),
    PRIMARY KEY (pool, key_state, stripe)
) WITHOUT ROWID;

CREATE TABLE epoch_levels (
    epoch    BLOB   NOT NULL REFERENCES epochs (id),
    stripe   BIGINT NOT NULL,
    inserted BIGINT NOT NULL,
    live     BIGINT NOT NULL CHECK (live >= 0),
    PRIMARY KEY (epoch, stripe)
) WITHOUT ROWID;

CREATE TRIGGER credentials_inserted AFTER INSERT ON credentials BEGIN
    INSERT INTO pool_levels (pool, key_state, stripe, keys) VALUES (new.pool, new.key_state, 0, 1)
        ON CONFLICT (pool, key_state, stripe) DO UPDATE SET keys = keys + 1;
    INSERT INTO epoch_levels (epoch, stripe, inserted, live) SELECT new.epoch, 0, 1, 1 WHERE new.epoch IS NOT NULL
        ON CONFLICT (epoch, stripe) DO UPDATE SET inserted = inserted + 1, live = live + 1;
END;

CREATE TRIGGER credentials_state_changed AFTER UPDATE OF key_state ON credentials
WHEN old.key_state <> new.key_state BEGIN
    UPDATE pool_levels SET keys = keys - 1 WHERE pool = old.pool AND key_state = old.key_state;
    INSERT INTO pool_levels (pool, key_state, stripe, keys) VALUES (new.pool, new.key_state, 0, 1)
        ON CONFLICT (pool, key_state, stripe) DO UPDATE SET keys = keys + 1;
    UPDATE epoch_levels SET live = live - 1
        WHERE epoch = old.epoch AND new.key_state IN ('DELIVERED', 'DESTROYED');
END;

CREATE TRIGGER credentials_drawn AFTER UPDATE OF key_state ON credentials
WHEN new.key_state = 'CLAIMED' AND old.key_state <> 'CLAIMED' BEGIN
    INSERT INTO pool_levels (pool, key_state, stripe, keys) VALUES (new.pool, 'DRAWN', 0, 1)
        ON CONFLICT (pool, key_state, stripe) DO UPDATE SET keys = keys + 1;
END;

CREATE TRIGGER credentials_moved AFTER UPDATE OF epoch ON credentials WHEN old.epoch <> new.epoch BEGIN
    UPDATE epoch_levels SET live = live - 1 WHERE epoch = old.epoch;
    INSERT INTO epoch_levels (epoch, stripe, inserted, live) VALUES (new.epoch, 0, 1, 1)
        ON CONFLICT (epoch, stripe) DO UPDATE SET inserted = inserted + 1, live = live + 1;
END;

CREATE TABLE key_blobs (
    credential BLOB NOT NULL PRIMARY KEY REFERENCES credentials (id),
    key_blob   BLOB NOT NULL,
    dek_blob   BLOB NOT NULL
);

CREATE TABLE certificate_requests (
    credential BLOB NOT NULL PRIMARY KEY REFERENCES credentials (id),
    der        BLOB NOT NULL,
    basis      BLOB NOT NULL
) WITHOUT ROWID;

CREATE TRIGGER credentials_answered AFTER UPDATE OF key_state ON credentials
WHEN old.key_state = 'GENERATED' AND new.key_state <> 'GENERATED' BEGIN
    DELETE FROM certificate_requests WHERE credential = new.id;
END;

CREATE TABLE key_epochs (
    credential BLOB NOT NULL REFERENCES credentials (id),
    epoch      BLOB NOT NULL REFERENCES epochs (id),
    PRIMARY KEY (credential, epoch)
) WITHOUT ROWID;

CREATE TABLE certificates (
    id           INTEGER NOT NULL PRIMARY KEY,
    credential   BLOB    NOT NULL REFERENCES credentials (id),
    -- A key that was made here has one certificate; a holder's own key may be certified again.
    turn         INTEGER NOT NULL DEFAULT 0,
    issuer       BLOB    NOT NULL REFERENCES issuers (id),
    serial       BLOB    NOT NULL,
    sha256       BLOB,
    der          BLOB,
    tbs_der      BLOB,
    state        TEXT    NOT NULL
        CHECK (state IN ('VALID', 'SUPERSEDED', 'REVOCATION_PENDING', 'REVOKED', 'EXPIRED')),
    not_before   BIGINT  NOT NULL,
    not_after    BIGINT  NOT NULL,
    usable_until BIGINT  NOT NULL,
    revoked_at   BIGINT,
    reason       TEXT,
    crl_shard    INTEGER NOT NULL,
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
    issuer      BLOB    NOT NULL REFERENCES issuers (id),
    shard       INTEGER NOT NULL,
    number      BIGINT  NOT NULL,
    entries     BIGINT  NOT NULL,
    der         BLOB    NOT NULL,
    this_update BIGINT  NOT NULL,
    next_update BIGINT  NOT NULL,
    PRIMARY KEY (issuer, shard)
);

CREATE TABLE ocsp_responders (
    issuer          BLOB   NOT NULL PRIMARY KEY REFERENCES issuers (id),
    key_object      TEXT   NOT NULL,
    certificate_der BLOB   NOT NULL,
    created_at      BIGINT NOT NULL
);

CREATE TABLE revoked_serials (
    issuer     BLOB   NOT NULL REFERENCES issuers (id),
    serial     BLOB   NOT NULL,
    not_after  BIGINT NOT NULL,
    revoked_at BIGINT NOT NULL,
    reason     TEXT   NOT NULL,
    PRIMARY KEY (issuer, serial)
) WITHOUT ROWID;

CREATE TABLE events (
    seq          INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id           BLOB    NOT NULL,
    time         BIGINT  NOT NULL,
    kind         TEXT    NOT NULL,
    actor        TEXT    NOT NULL,
    tenant       TEXT,
    vnf_instance TEXT,
    vnfci        TEXT,
    json         TEXT    NOT NULL
);
CREATE UNIQUE INDEX events_id ON events (id);
CREATE INDEX events_vnfci ON events (vnfci, seq) WHERE vnfci IS NOT NULL;

CREATE TABLE event_credentials (
    public_key BLOB NOT NULL,
    event_id   BLOB NOT NULL REFERENCES events (id),
    PRIMARY KEY (public_key, event_id)
) WITHOUT ROWID;

CREATE TABLE audit_chain (
    idx      INTEGER NOT NULL PRIMARY KEY,
    event_id BLOB    NOT NULL REFERENCES events (id),
    hash     BLOB    NOT NULL
);
CREATE UNIQUE INDEX audit_chain_event ON audit_chain (event_id);

CREATE TABLE heads (
    size        INTEGER NOT NULL PRIMARY KEY,
    signed_head TEXT    NOT NULL,
    created_at  BIGINT  NOT NULL
);

CREATE TABLE leases (
    name       TEXT   NOT NULL PRIMARY KEY,
    holder     TEXT   NOT NULL,
    fence      BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE marks (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE requests (
    caller     TEXT   NOT NULL,
    request_id BLOB   NOT NULL,
    body       BLOB   NOT NULL,
    outcome    TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (caller, request_id)
) WITHOUT ROWID;
CREATE INDEX requests_created ON requests (created_at);

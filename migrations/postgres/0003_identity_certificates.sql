-- Certificates that an identity had before its present one, and that are good until they end.
CREATE TABLE identity_certificates (
    fingerprint BYTEA  NOT NULL PRIMARY KEY,
    identity    TEXT   NOT NULL REFERENCES identities (name),
    not_after   BIGINT NOT NULL
);
CREATE INDEX identity_certificates_identity ON identity_certificates (identity);

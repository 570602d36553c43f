-- The CA key that was last requested for each CA of a tenant: it waits for the certificate of a root elsewhere, and is used for
-- nothing else meanwhile. One that was requested before this was recorded is recorded when it is requested again.
CREATE TABLE ca_requests (
    tenant     TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    name       TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);
CREATE UNIQUE INDEX ca_requests_generation ON ca_requests (tenant, generation);

--
-- PostgreSQL database dump
--


-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: count_changed_credentials(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.count_changed_credentials() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
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


--
-- Name: count_inserted_credentials(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.count_inserted_credentials() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
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


--
-- Name: event_base(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.event_base() RETURNS bigint
    LANGUAGE sql STABLE
    AS $$ SELECT CAST(0 AS BIGINT) $$;


--
-- Name: forget_certificate_request(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.forget_certificate_request() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    DELETE FROM certificate_requests WHERE credential = NEW.id;
    RETURN NULL;
END
$$;


--
-- Name: settled_before(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.settled_before() RETURNS bigint
    LANGUAGE sql STABLE
    AS $$
    SELECT event_base() + COALESCE(
        (SELECT MIN(CAST(CAST(running AS TEXT) AS BIGINT))
         FROM pg_snapshot_xip(pg_current_snapshot()) AS running
         WHERE NOT EXISTS (
             SELECT 1 FROM pg_stat_activity AS a WHERE a.backend_xid = CAST(running AS xid)
             AND a.datid <> (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()))),
        CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS TEXT) AS BIGINT))
$$;


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: _sqlx_migrations; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public._sqlx_migrations (
    version bigint NOT NULL,
    description text NOT NULL,
    installed_on timestamp with time zone DEFAULT now() NOT NULL,
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);


--
-- Name: anchor_crls; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.anchor_crls (
    tenant text NOT NULL COLLATE pg_catalog."C",
    anchor text NOT NULL COLLATE pg_catalog."C",
    fingerprint bytea NOT NULL,
    der bytea NOT NULL,
    created_at bigint NOT NULL
);


--
-- Name: anchors; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.anchors (
    tenant text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    certificate_der bytea NOT NULL,
    fingerprint bytea NOT NULL,
    public_key bytea NOT NULL,
    revocation text NOT NULL COLLATE pg_catalog."C",
    policies text NOT NULL COLLATE pg_catalog."C",
    strict bigint NOT NULL,
    created_at bigint NOT NULL
);


--
-- Name: audit_chain; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.audit_chain (
    idx bigint NOT NULL,
    event_id bytea NOT NULL,
    hash bytea NOT NULL
);


--
-- Name: certificate_requests; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.certificate_requests (
    credential bytea NOT NULL,
    der bytea NOT NULL,
    basis bytea NOT NULL
);


--
-- Name: certificates; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.certificates (
    id bigint NOT NULL,
    credential bytea NOT NULL,
    turn bigint DEFAULT 0 NOT NULL,
    issuer bytea NOT NULL,
    serial bytea NOT NULL,
    sha256 bytea,
    der bytea,
    tbs_der bytea,
    state text NOT NULL COLLATE pg_catalog."C",
    not_before bigint NOT NULL,
    not_after bigint NOT NULL,
    usable_until bigint NOT NULL,
    revoked_at bigint,
    reason text COLLATE pg_catalog."C",
    crl_shard bigint NOT NULL,
    CONSTRAINT certificates_check CHECK (((der IS NULL) = (tbs_der IS NOT NULL))),
    CONSTRAINT certificates_check1 CHECK (((der IS NULL) = (sha256 IS NULL))),
    CONSTRAINT certificates_state_check CHECK ((state = ANY (ARRAY['VALID'::text, 'SUPERSEDED'::text, 'REVOCATION_PENDING'::text, 'REVOKED'::text, 'EXPIRED'::text])))
);


--
-- Name: certificates_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.certificates ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.certificates_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: claims; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.claims (
    id bytea NOT NULL,
    initial_credential bytea NOT NULL,
    renews bytea,
    overlap bigint,
    tenant text NOT NULL COLLATE pg_catalog."C",
    vnf_instance text NOT NULL COLLATE pg_catalog."C",
    vnfci text NOT NULL COLLATE pg_catalog."C",
    request bytea NOT NULL,
    recipient_key bytea NOT NULL,
    state text NOT NULL COLLATE pg_catalog."C",
    deadline bigint NOT NULL,
    created_at bigint NOT NULL,
    confirmed_at bigint,
    overlap_ends_at bigint,
    ended_at bigint,
    CONSTRAINT claims_check CHECK (((renews IS NULL) = (overlap IS NULL))),
    CONSTRAINT claims_check1 CHECK (((state <> 'RENEWED'::text) OR (overlap_ends_at IS NOT NULL))),
    CONSTRAINT claims_state_check CHECK ((state = ANY (ARRAY['OPEN'::text, 'CONFIRMED'::text, 'RENEWED'::text, 'DESTROYED'::text, 'RELEASED'::text, 'SUPERSEDED'::text])))
);


--
-- Name: credentials; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.credentials (
    id bytea NOT NULL,
    tenant text NOT NULL COLLATE pg_catalog."C",
    pool bytea NOT NULL,
    epoch bytea,
    key_state text NOT NULL COLLATE pg_catalog."C",
    public_key_sha256 bytea NOT NULL,
    public_key_der bytea NOT NULL,
    usable_until bigint,
    created_at bigint NOT NULL,
    claim_id bytea,
    slot text COLLATE pg_catalog."C",
    claimed_at bigint,
    erased_at bigint,
    custody_ended_at bigint,
    custody_reason text COLLATE pg_catalog."C",
    custody_holder_copy text COLLATE pg_catalog."C",
    custody_revocation text COLLATE pg_catalog."C",
    receipt text COLLATE pg_catalog."C",
    CONSTRAINT credentials_check CHECK (((key_state = ANY (ARRAY['DELIVERED'::text, 'DESTROYED'::text])) = (erased_at IS NOT NULL))),
    CONSTRAINT credentials_check1 CHECK (((claim_id IS NULL) = (slot IS NULL))),
    CONSTRAINT credentials_check2 CHECK (((key_state = 'EXTERNAL'::text) = (epoch IS NULL))),
    CONSTRAINT credentials_key_state_check CHECK ((key_state = ANY (ARRAY['GENERATED'::text, 'AVAILABLE'::text, 'CLAIMED'::text, 'DELIVERED'::text, 'DESTROYED'::text, 'EXTERNAL'::text])))
)
WITH (autovacuum_vacuum_threshold='1000', autovacuum_vacuum_scale_factor='0.02');


--
-- Name: crls; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.crls (
    issuer bytea NOT NULL,
    shard bigint NOT NULL,
    number bigint NOT NULL,
    entries bigint NOT NULL,
    der bytea NOT NULL,
    this_update bigint NOT NULL,
    next_update bigint NOT NULL
);


--
-- Name: epoch_levels; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.epoch_levels (
    epoch bytea NOT NULL,
    stripe bigint NOT NULL,
    inserted bigint NOT NULL,
    live bigint NOT NULL
)
WITH (fillfactor='30', autovacuum_vacuum_threshold='500', autovacuum_vacuum_scale_factor='0');


--
-- Name: epochs; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.epochs (
    id bytea NOT NULL,
    tenant text NOT NULL COLLATE pg_catalog."C",
    state text NOT NULL COLLATE pg_catalog."C",
    created_at bigint NOT NULL,
    first_erasure_at bigint,
    destroyed_at bigint,
    token_serial text COLLATE pg_catalog."C",
    CONSTRAINT epochs_state_check CHECK ((state = ANY (ARRAY['CREATING'::text, 'OPEN'::text, 'CLOSED'::text, 'SHREDDING'::text, 'DESTROYED'::text])))
);


--
-- Name: event_credentials; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.event_credentials (
    public_key bytea NOT NULL,
    event_id bytea NOT NULL
);


--
-- Name: events; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.events (
    seq bigint NOT NULL,
    id bytea NOT NULL,
    "time" bigint NOT NULL,
    kind text NOT NULL COLLATE pg_catalog."C",
    actor text NOT NULL COLLATE pg_catalog."C",
    tenant text COLLATE pg_catalog."C",
    vnf_instance text COLLATE pg_catalog."C",
    vnfci text COLLATE pg_catalog."C",
    json text NOT NULL COLLATE pg_catalog."C",
    xact bigint DEFAULT (public.event_base() + ((pg_current_xact_id())::text)::bigint) NOT NULL
);


--
-- Name: events_seq_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.events ALTER COLUMN seq ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.events_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: heads; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.heads (
    size bigint NOT NULL,
    signed_head text NOT NULL COLLATE pg_catalog."C",
    created_at bigint NOT NULL
);


--
-- Name: identities; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.identities (
    name text NOT NULL COLLATE pg_catalog."C",
    role text NOT NULL COLLATE pg_catalog."C",
    tenant text COLLATE pg_catalog."C",
    granted_vnfs text NOT NULL COLLATE pg_catalog."C",
    certificate_der bytea NOT NULL,
    fingerprint bytea NOT NULL,
    created_at bigint NOT NULL
);


--
-- Name: initial_credentials; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.initial_credentials (
    id bytea NOT NULL,
    tenant text NOT NULL COLLATE pg_catalog."C",
    vnf_instance text NOT NULL COLLATE pg_catalog."C",
    vnfci text NOT NULL COLLATE pg_catalog."C",
    generation bigint NOT NULL,
    kind text NOT NULL COLLATE pg_catalog."C",
    anchor text COLLATE pg_catalog."C",
    fingerprint bytea,
    name text COLLATE pg_catalog."C",
    state text NOT NULL COLLATE pg_catalog."C",
    redraws bigint NOT NULL,
    expires_at bigint NOT NULL,
    created_at bigint NOT NULL,
    CONSTRAINT initial_credentials_kind_check CHECK ((kind = ANY (ARRAY['X509_FINGERPRINT'::text, 'X509_NAME'::text, 'TOKEN'::text]))),
    CONSTRAINT initial_credentials_state_check CHECK ((state = ANY (ARRAY['OPEN'::text, 'SPENT'::text, 'VOID'::text])))
);


--
-- Name: issuers; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.issuers (
    id bytea NOT NULL,
    tenant text COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    external text COLLATE pg_catalog."C",
    generation bigint NOT NULL,
    key_object text NOT NULL COLLATE pg_catalog."C",
    certificate_der bytea NOT NULL,
    chain_der text NOT NULL COLLATE pg_catalog."C",
    created_at bigint NOT NULL
);


--
-- Name: key_blobs; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.key_blobs (
    credential bytea NOT NULL,
    key_blob bytea NOT NULL,
    dek_blob bytea NOT NULL
)
WITH (autovacuum_vacuum_threshold='1000', autovacuum_vacuum_scale_factor='0.02');


--
-- Name: key_epochs; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.key_epochs (
    credential bytea NOT NULL,
    epoch bytea NOT NULL
);


--
-- Name: leases; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.leases (
    name text NOT NULL COLLATE pg_catalog."C",
    holder text NOT NULL COLLATE pg_catalog."C",
    fence bigint NOT NULL,
    expires_at bigint NOT NULL
);


--
-- Name: marks; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.marks (
    name text NOT NULL COLLATE pg_catalog."C",
    value text NOT NULL COLLATE pg_catalog."C"
);


--
-- Name: ocsp_responders; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.ocsp_responders (
    issuer bytea NOT NULL,
    key_object text NOT NULL COLLATE pg_catalog."C",
    certificate_der bytea NOT NULL,
    created_at bigint NOT NULL
);


--
-- Name: pool_levels; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.pool_levels (
    pool bytea NOT NULL,
    key_state text NOT NULL COLLATE pg_catalog."C",
    stripe bigint NOT NULL,
    keys bigint NOT NULL
)
WITH (fillfactor='30', autovacuum_vacuum_threshold='500', autovacuum_vacuum_scale_factor='0');


--
-- Name: pools; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.pools (
    id bytea NOT NULL,
    tenant text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    vnf_instance text NOT NULL COLLATE pg_catalog."C",
    vdu text NOT NULL COLLATE pg_catalog."C",
    profile text NOT NULL COLLATE pg_catalog."C",
    target bigint NOT NULL,
    refill_below bigint NOT NULL,
    issue text NOT NULL COLLATE pg_catalog."C",
    created_at bigint NOT NULL,
    deleted_at bigint,
    CONSTRAINT pools_issue_check CHECK ((issue = ANY (ARRAY['ahead'::text, 'at_claim'::text])))
);


--
-- Name: requests; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.requests (
    caller text NOT NULL COLLATE pg_catalog."C",
    request_id bytea NOT NULL,
    body bytea NOT NULL,
    outcome text COLLATE pg_catalog."C",
    created_at bigint NOT NULL
);


--
-- Name: revoked_serials; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.revoked_serials (
    issuer bytea NOT NULL,
    serial bytea NOT NULL,
    not_after bigint NOT NULL,
    revoked_at bigint NOT NULL,
    reason text NOT NULL COLLATE pg_catalog."C"
);


--
-- Name: slots; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.slots (
    tenant text NOT NULL COLLATE pg_catalog."C",
    vnfci text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    pool bytea NOT NULL,
    pool_name text NOT NULL COLLATE pg_catalog."C"
);


--
-- Name: tenants; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.tenants (
    id text NOT NULL COLLATE pg_catalog."C",
    created_at bigint NOT NULL,
    removed_at bigint
);


--
-- Name: vnfcis; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.vnfcis (
    tenant text NOT NULL COLLATE pg_catalog."C",
    id text NOT NULL COLLATE pg_catalog."C",
    vnf_instance text NOT NULL COLLATE pg_catalog."C",
    vdu text NOT NULL COLLATE pg_catalog."C",
    state text NOT NULL COLLATE pg_catalog."C",
    initial_credential bytea NOT NULL,
    registered_at bigint NOT NULL,
    ended_at bigint,
    renewal_requested_at bigint,
    CONSTRAINT vnfcis_state_check CHECK ((state = ANY (ARRAY['REGISTERED'::text, 'ACTIVE'::text, 'RELEASED'::text, 'TERMINATED'::text])))
);


--
-- Data for Name: _sqlx_migrations; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public._sqlx_migrations VALUES
	(1, 'initial', '2026-11-22 09:00:02.988704+00', true, '\xc2444d611e47832b6aa325e920706e91ea4afcbb64361db7b9c9781935949bff608062fee85b862c90494a21aff03e8f', 979171893);


--
-- Data for Name: anchor_crls; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: anchors; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: audit_chain; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.audit_chain VALUES
	(0, '\x01a2027bea6575029e5d442a6d52aea2', '\xf575fee1ca3abe5d6d697f2a4394ca8475b1fb93bae42ab348c83b3e691365e8'),
	(1, '\x01a2027beb3573d3aaa8a6312b343cf9', '\x62e5fcee3cd41ada94dc0616dc88236fcc6044307083dc74e2c2687d1ce67ff4'),
	(2, '\x01a2027beb8176e0aa8052321b511725', '\x649c27df0a4a946150a3ba48b05c531ff4caaa35d533e997e25f81b23d694450'),
	(3, '\x01a2027bec8675f788eee9556458e793', '\x932ae23cb1bd2546f66297555e62f7322c0bdf0d307d0d95c82f3132de60247b'),
	(4, '\x01a2027beda176c8b5ecd28a1649ceaa', '\xc040ccea2123a947fdec70795230880dcbd403734501215b50b8496814bc5b01'),
	(5, '\x01a2027bedf6728faf55a20df18361cd', '\x7c9037bfa1df82be87eeda848cc3d605be762503d64eca1a5c88acd29ac92d70'),
	(6, '\x01a2027bee5a76d1a01031d32b2d07e8', '\xb707930dab8cb3ad00a3c36326e192952c41f931bacb25fd19a03cd4d32a16a6'),
	(7, '\x01a2027bee897047a813e48e65323992', '\x55706dde4a2b8e594bff01da345a9f465f04e03a744c78b7bc359ed021c78525'),
	(8, '\x01a2027beeed715f8069cbfe8286e694', '\xc7ddd4577fbbcca898cdb130f97dfece6276e872edd137491db9ec7910e9eef6'),
	(9, '\x01a2027bf39171ed847ad6a85856458a', '\xf51dda418151706774768105e034a9dc2415b123cac3273bc500d18fddb0d023'),
	(10, '\x01a2027bf5c9749799d231824b879045', '\x53f81473d26890a901c038922fe448c7e92c0a64d56aee04fb8da991f183080d'),
	(11, '\x01a2027bf64d7522b7f3ba46d1f69807', '\xc31c5e35d7b2676141be18d07c8c7617fbcdfe2c7af2d26fd5fc11ad494f6aba'),
	(12, '\x01a2027bf6817566bc056ebd2519cb75', '\x9a31e3902aace884a521a688d7df4c5716ec38d6c854d6b4caff9d082555c4e7'),
	(13, '\x01a2027c008e752cb94ef15f95800889', '\xda625ee6b7010b374c7ce6855e9525c8e60979bf58dd7049ba971868e9c630a5'),
	(14, '\x01a2027c0197723ca384d633b6d89790', '\x0aaabaeb880dcb622e6c9596d64cd042aca43f98736880703c392bb979276c48'),
	(15, '\x01a2027c01de7336ae5253b773420c1b', '\xd6a7b334c6ef9188c42dcd15fd0b149ab58f4422dce0e61a0fee37812365b6d5'),
	(16, '\x01a2027c023a76af8a9deafb331ce559', '\x41ddb6cff75b541dab56b2c0257b47a174b84c4ec5d3caa042b1007698e80dd6'),
	(17, '\x01a2027c028876ac9f082606cc8b2240', '\xe505d2e470a762b967e3582086cb96fff9273906d5115b31fdfbf80a23330a4c'),
	(18, '\x01a2027c03cc76b1b931286eb82954a3', '\x52ea03b2ea6970d74a81d628c280132990fb28009c8a006b4b38e257ebf93cd1'),
	(19, '\x01a2027c058577faba1b37d70dbe054a', '\xc277c95debe312fe771bce8f7c4b252e347678609de3339d17055a0f1476df8e'),
	(20, '\x01a2027c07e677fdbf8724e0c31da3ab', '\xb177ddfec3455474b72aedc37af5eadaf62216d3bdb26257e69196b98853b11a'),
	(21, '\x01a2027c0c1b72f88121907d59244fa3', '\x9c17ee491ac16d20ef18fbc848082ad0da1f5fe1fe42d9ca88f7ef9118638994'),
	(22, '\x01a2027c0cd476d3a7a26d360683ba84', '\xc4acc833c2e03d3a2983f2510d3e5cd202d49b7ec4996ff1e914c3930d84df17'),
	(23, '\x01a2027c0d0b75e299fae541731e1960', '\x60b8c15bfdd5c9d15752a6314abda4fea6ab44f5d454dbbcfa717e9d4a7738b2'),
	(24, '\x01a2027c0f5d7002a8b5ace9458f71a8', '\xcd469ce4cbfbb01da5baedea31680515146f5aaf3d0396d55f30854e93f6d530'),
	(25, '\x01a2027c102c754297a59e7dded763c0', '\x768034c755a83c1b775af17a67da4eb798a17dd5c6ea8d29dc6a4e53762b5604'),
	(26, '\x01a2027c103d706f8d973de90421b58f', '\xdd985d43789a511ec8da96752c6c236ab70e8faad4129c040f71615054e4b488'),
	(27, '\x01a2027c11f472cabf5dee71d6dc75ea', '\x62ea7daf7c3168382d3cb977f684e5eecd894f956ccb93e69c364280bf6db7ee'),
	(28, '\x01a2027c129d71f8894fa33f00181a2d', '\x8915e372dffbee35fe79b489d26f28f099c6fd340192d456992e8fb41be6bf3a'),
	(29, '\x01a2027c12a073bfab1630c6784f178b', '\xa3df5f4903340d3d94d88f036957a69b093b3a18c89be99fb32e9eb5c062e10c'),
	(30, '\x01a2027c15e9776da7365c5c87577afd', '\x235e798f0c7b8ee54f750486e1283dab5a3041c4796ff767758faa382610fcaf'),
	(31, '\x01a2027c165f77d3952f2ab7e51ce0e2', '\x793ed2ba9effd066801454c365abc1fe1d983cb91a2662ee5c55e8b236d3e19f'),
	(32, '\x01a2027c16b376a8a2667882d90b20d2', '\x343b63d4f163544d413ac796a7cd6629b8f2d87a9eccb3a37dd59103faa5e9f6'),
	(33, '\x01a2027c16b9725380960092cc6638c7', '\x6894677c3267db1915c3ab12ecdf9d57e0b8fd0c69c2317a998939d1c6cb9d18'),
	(34, '\x01a2027c182c7238bae8aeb3079b3e83', '\xc7bc41fe4934987ad780a2216b369c706b9ad478aef2c01df7ea1a17853807be'),
	(35, '\x01a2027c18b877cfae7968be03314cf4', '\xf418b9337fa2b9d6d1944ad17f3293c89e5a4d48344aad60fc0c608a88315308'),
	(36, '\x01a2027c18be76ddacc06fb522f74dde', '\xdafaeece71114eb1682ff55b45bdcdf45e22278624d01426489d813872fe9afd'),
	(37, '\x01a2027c18d977a6aad7985b37321084', '\x43935114470a35ae40dcae02a600998395b25940d2d731596ba14b83df30024f'),
	(38, '\x01a2027c190877398e747f6b8996148a', '\x703900aa165b2829a5de97cf1052adbf56612baa359d0557a8434764ed199646'),
	(39, '\x01a2027c192677f584c278f44bdf1676', '\xefcf3061cc804796e54e830e0c6078661444f3859cc9059b9e138f4a1956a4af'),
	(40, '\x01a2027c194d77d3857646a5cba0273f', '\x794325ed44ec7b0f6691c12becb17a471cf2ac8d5553131c981113065e5cd24e'),
	(41, '\x01a2027c197273708feb8b96958fa146', '\x3999fd16b93a57739c5d1607426bd1fef5ca27aac229e915c09bb7c0cf20e002'),
	(42, '\x01a2027c1aa671e797a4ed7375b4fdc4', '\x772a52a7957901532c73a4ecfa93f9850bd0da3d612d740883e58a7895551de2'),
	(43, '\x01a2027c1b0271378eaf44f99b89ec51', '\xef00ad52df73a8e1842012ba23e5c81ca6b75a381779c2267e0aee524dd8a80f'),
	(44, '\x01a2027c1b467729b97dd6f440ff0f00', '\x997b357dd8febe5c590c3df712e56ff8342e7e936ff752eb6f9e9750138b4fe2');


--
-- Data for Name: certificate_requests; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: certificates; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.certificates VALUES
	(4, '\x01a2027c1037754c89d63c88f9174ea2', 0, '\x01a2027bec8675f788eee954af3d93b5', '\x4fd8879252424b3ba51da1e8c815ee7d', '\x766da1d2bf3dc488241771dece0c7b1be456667f21ec6e19f410c7552ebaf8d0', '\x308202d230820278a00302010202104fd8879252424b3ba51da1e8c815ee7d300a06082a8648ce3d040302303931123010060355040a0c096b657962726f6b65723110300e060355040b0c0764656661756c743111300f06035504030c087375622d43412031301e170d3236313132323038353931345a170d3236313132393034333035305a304131123010060355040a0c096b657962726f6b65723110300e060355040b0c0764656661756c743119301706035504030c10616d662d776f726b65722e616d662d313059301306072a8648ce3d020106082a8648ce3d03010703420004531ce79acd3fdaf94919dd9cb02235f181f98ad16c26efec842770eded9af257e876f10ba38fe17967a8e98bd61fb36e92dfb93441af206047614e7ac208acffa382015830820154300c0603551d130101ff04023000300e0603551d0f0101ff040403020780301d0603551d250416301406082b0601050507030206082b0601050507030130380603551d110431302f862d75726e3a757569643a30316132303237632d313033372d373534632d383964362d336338386639313734656132301d0603551d0e041604149580eab8f16068d720b1c776961e5fcccc70ec5e301f0603551d230418301680144aa24b337674754ec712dd4a78b9dcdf9214eedf305b0603551d1f045430523050a04ea04c864a687474703a2f2f6b657962726f6b65722e6578616d706c653a373038302f63726c2f30316132303237622d656338362d373566372d383865652d6539353461663364393362352e63726c303e06082b0601050507010104323030302e06082b060105050730018622687474703a2f2f6b657962726f6b65722e6578616d706c653a373038302f6f637370300a06082a8648ce3d040302034800304502207ceacac03e9608eac23204a24d0d778efb3e952d9ac89bff700b16f0551058f2022100c6dbada78d7731ac4196674455122cc9843fa2aeb782e25b241f7ed2230effac', NULL, 'VALID', 1795337954000000, 1795926650000000, 1795523450000000, NULL, NULL, 0),
	(5, '\x01a2027c129c734f8a193741f4b82b2b', 0, '\x01a2027bec8675f788eee954af3d93b5', '\x5c146fcd864770a6fb432270cc4e54ce', '\xd6dce557e317660f63c7cd7c95258ae726ab17f4af8377f2a4f28b8895b0f9eb', '\x308202d330820278a00302010202105c146fcd864770a6fb432270cc4e54ce300a06082a8648ce3d040302303931123010060355040a0c096b657962726f6b65723110300e060355040b0c0764656661756c743111300f06035504030c087375622d43412031301e170d3236313132323038353931355a170d3236313132393032303430375a304131123010060355040a0c096b657962726f6b65723110300e060355040b0c0764656661756c743119301706035504030c10616d662d776f726b65722e616d662d313059301306072a8648ce3d020106082a8648ce3d03010703420004553831b1ce4d88b6fab34b24f79889020b5133de486c8c6494ad39f19581d829bb54b9f71ca673fa4d83c586814fafe3f3f542e1269ea107e9aa2c63e0aab6c9a382015830820154300c0603551d130101ff04023000300e0603551d0f0101ff040403020780301d0603551d250416301406082b0601050507030206082b0601050507030130380603551d110431302f862d75726e3a757569643a30316132303237632d313239632d373334662d386131392d333734316634623832623262301d0603551d0e04160414da8e6550d89cf6d85495232c3129039bad410788301f0603551d230418301680144aa24b337674754ec712dd4a78b9dcdf9214eedf305b0603551d1f045430523050a04ea04c864a687474703a2f2f6b657962726f6b65722e6578616d706c653a373038302f63726c2f30316132303237622d656338362d373566372d383865652d6539353461663364393362352e63726c303e06082b0601050507010104323030302e06082b060105050730018622687474703a2f2f6b657962726f6b65722e6578616d706c653a373038302f6f637370300a06082a8648ce3d0403020349003046022100c337b09ed40f09e30f93ae67d193a3f8961124e6fcac0f1163447338f203feac022100d32792e01a517ed70d104ab8752a3d4f0f3024c2722064cf202352fd64520655', NULL, 'VALID', 1795337955000000, 1795917847000000, 1795514647000000, NULL, NULL, 0),
	(2, '\x01a2027c027275e4bb55dd27d5355ec5', 0, '\x01a2027bec8675f788eee954af3d93b5', '\x5dc0a05c15cf72a8ca82df6ae5ce3d50', '\xbb3530064284a7087b39f31c8526266e2c4fc4d5d743677aae435470099b7b03', '\x308202d230820278a00302010202105dc0a05c15cf72a8ca82df6ae5ce3d50300a06082a8648ce3d040302303931123010060355040a0c096b657962726f6b65723110300e060355040b0c0764656661756c743111300f06035504030c087375622d43412031301e170d3236313132323038353931315a170d3236313132393037343531315a304131123010060355040a0c096b657962726f6b65723110300e060355040b0c0764656661756c743119301706035504030c10616d662d776f726b65722e616d662d313059301306072a8648ce3d020106082a8648ce3d030107034200048c635648c2221a5a65a74be3eead0a1270772e6e8efc19bad3e1db13799e8bf267660f41a84d961a4f6f7a20c3d2575b7fd7215401e1ae8eb8c9b1d6c77d75bea382015830820154300c0603551d130101ff04023000300e0603551d0f0101ff040403020780301d0603551d250416301406082b0601050507030206082b0601050507030130380603551d110431302f862d75726e3a757569643a30316132303237632d303237322d373565342d626235352d646432376435333535656335301d0603551d0e0416041442a5c9defb742e2a275ef03299a1b617aae706df301f0603551d230418301680144aa24b337674754ec712dd4a78b9dcdf9214eedf305b0603551d1f045430523050a04ea04c864a687474703a2f2f6b657962726f6b65722e6578616d706c653a373038302f63726c2f30316132303237622d656338362d373566372d383865652d6539353461663364393362352e63726c303e06082b0601050507010104323030302e06082b060105050730018622687474703a2f2f6b657962726f6b65722e6578616d706c653a373038302f6f637370300a06082a8648ce3d040302034800304502205aab643a329dfad3db9c5c52772f2ab0417c539a597bee01cc718699e2e276db022100fdb656ab938c91e3faec1db2def319620ec5254c0111073e41f9aa4b58f20777', NULL, 'SUPERSEDED', 1795337951000000, 1795938311000000, 1795535111000000, NULL, NULL, 0),
	(6, '\x01a2027c1699742eade9d632522cf45a', 0, '\x01a2027bec8675f788eee954af3d93b5', '\x619e5a2bc5936adc093b41ae2547433d', '\x7eb07f0ff961e83e082c2b44eeccba83aca20469a21de42b4526bde3cbc66cfa', '\x308202d230820278a0030201020210619e5a2bc5936adc093b41ae2547433d300a06082a8648ce3d040302303931123010060355040a0c096b657962726f6b65723110300e060355040b0c0764656661756c743111300f06035504030c087375622d43412031301e170d3236313132323038353931365a170d3236313132393036313130375a304131123010060355040a0c096b657962726f6b65723110300e060355040b0c0764656661756c743119301706035504030c10616d662d776f726b65722e616d662d313059301306072a8648ce3d020106082a8648ce3d0301070342000457e29e87ed7b44003337871644be4c7d0b3583b72a29fe4dfc8dc607d03c9b4501c03087393055797d121817bfe41531fdcb67ac5e8d21d5e9aa9b4e5265fdc6a382015830820154300c0603551d130101ff04023000300e0603551d0f0101ff040403020780301d0603551d250416301406082b0601050507030206082b0601050507030130380603551d110431302f862d75726e3a757569643a30316132303237632d313639392d373432652d616465392d643633323532326366343561301d0603551d0e041604148e8ceffd1d49905e5f6d183548e01a43bc16da8c301f0603551d230418301680144aa24b337674754ec712dd4a78b9dcdf9214eedf305b0603551d1f045430523050a04ea04c864a687474703a2f2f6b657962726f6b65722e6578616d706c653a373038302f63726c2f30316132303237622d656338362d373566372d383865652d6539353461663364393362352e63726c303e06082b0601050507010104323030302e06082b060105050730018622687474703a2f2f6b657962726f6b65722e6578616d706c653a373038302f6f637370300a06082a8648ce3d0403020348003045022100a9e1712e8911bca356cfa4bf9aeed6c89119de1ceb76df12c28e4320cdb54e9d0220635ed05604fe800aa39b5904da13ac373e6492ea1fdc6712b6fb58f1e8fd5ade', NULL, 'VALID', 1795337956000000, 1795932667000000, 1795529467000000, NULL, NULL, 0),
	(1, '\x01a2027c027275e4bb55dd264b8be90a', 0, '\x01a2027bec8675f788eee954af3d93b5', '\x7c8658c2c9b105d7f734ef49e748c253', '\x6bfe84bd015bdc6701c30ddfc4914420a2f985640af5afeca026cdd883552883', '\x308202d230820278a00302010202107c8658c2c9b105d7f734ef49e748c253300a06082a8648ce3d040302303931123010060355040a0c096b657962726f6b65723110300e060355040b0c0764656661756c743111300f06035504030c087375622d43412031301e170d3236313132323038353931315a170d3236313132393035313531315a304131123010060355040a0c096b657962726f6b65723110300e060355040b0c0764656661756c743119301706035504030c10616d662d776f726b65722e616d662d313059301306072a8648ce3d020106082a8648ce3d03010703420004f61b85e1e355709aab8635aeefa3684905ec47f0090d11ffa02344dad1887aa359d93ae36855539be106346466459e1c980166e69ebb64bfd2f40a8e27fec00ba382015830820154300c0603551d130101ff04023000300e0603551d0f0101ff040403020780301d0603551d250416301406082b0601050507030206082b0601050507030130380603551d110431302f862d75726e3a757569643a30316132303237632d303237322d373565342d626235352d646432363462386265393061301d0603551d0e0416041450bc3d4bd692ef58d984f5872f02a575550bc45d301f0603551d230418301680144aa24b337674754ec712dd4a78b9dcdf9214eedf305b0603551d1f045430523050a04ea04c864a687474703a2f2f6b657962726f6b65722e6578616d706c653a373038302f63726c2f30316132303237622d656338362d373566372d383865652d6539353461663364393362352e63726c303e06082b0601050507010104323030302e06082b060105050730018622687474703a2f2f6b657962726f6b65722e6578616d706c653a373038302f6f637370300a06082a8648ce3d0403020348003045022033687463e37c5012b6477ec96471102f91ca3b5d9c86b216df7e73db9cf1ed68022100f494182ecec29b384efe44d95618a32b548365ab3cc328758fa2e2e102fde064', NULL, 'REVOKED', 1795337951000000, 1795929311000000, 1795526111000000, 1795338017062444, 'CESSATION_OF_OPERATION', 0),
	(3, '\x01a2027c0cfc763197655ba5e08dd78a', 0, '\x01a2027bec8675f788eee954af3d93b5', '\x616276c84bbfddf581bb88d196bd74be', '\xfbba962147debdc5e19022d634b34646a51a9f3500dd215f87362c0e11f8004d', '\x308202d130820278a0030201020210616276c84bbfddf581bb88d196bd74be300a06082a8648ce3d040302303931123010060355040a0c096b657962726f6b65723110300e060355040b0c0764656661756c743111300f06035504030c087375622d43412031301e170d3236313132323038353931335a170d3236313132393032303331345a304131123010060355040a0c096b657962726f6b65723110300e060355040b0c0764656661756c743119301706035504030c10616d662d776f726b65722e616d662d313059301306072a8648ce3d020106082a8648ce3d0301070342000408afc8c4a2d046d1016ee9136180d80c2fc185056b77e84d239b9c2345614690fadc872ba8f6494b55c1f6bf6bb05b12a3c31dacb0f27398d12ff0faa77539c6a382015830820154300c0603551d130101ff04023000300e0603551d0f0101ff040403020780301d0603551d250416301406082b0601050507030206082b0601050507030130380603551d110431302f862d75726e3a757569643a30316132303237632d306366632d373633312d393736352d356261356530386464373861301d0603551d0e04160414112d8b2c2ed4dcce027c14e309f4a73732446fcd301f0603551d230418301680144aa24b337674754ec712dd4a78b9dcdf9214eedf305b0603551d1f045430523050a04ea04c864a687474703a2f2f6b657962726f6b65722e6578616d706c653a373038302f63726c2f30316132303237622d656338362d373566372d383865652d6539353461663364393362352e63726c303e06082b0601050507010104323030302e06082b060105050730018622687474703a2f2f6b657962726f6b65722e6578616d706c653a373038302f6f637370300a06082a8648ce3d040302034700304402200e24ef3302eb68aa4f3b29392cbd6a8f0edcd953f29251b844e7fc1cfd73332902206999b3c5eb10bb8dd408cfe471a13e61363fc4698fdebe8b4f54e1727438a4d5', NULL, 'REVOKED', 1795337953000000, 1795917794000000, 1795514594000000, 1795338017416866, 'CESSATION_OF_OPERATION', 0);


--
-- Data for Name: claims; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.claims VALUES
	('\x01a2027c11a8771a8ecdaecea4f9ed77', '\x01a2027c0580749c9c16f3bde0996223', NULL, NULL, 'default', 'amf-1', 'amf-3', '\x01a2027c11847233a715c81fa422f06a', '\xedbe1de694387a3a412ec76eadf6e5a54f922afd023432827079cd8aa1af1d52', 'CONFIRMED', 1795338915144586, 1795338015160706, 1795338015390282, NULL, NULL),
	('\x01a2027c0f557779ac50875a0217ea19', '\x01a2027c03c0745fb3c2d54719a5ee2d', NULL, NULL, 'default', 'amf-1', 'amf-2', '\x01a2027c0eb071cfaf674ecc345f7ed9', '\x363e7a0b135976466e2ef2456d4593cfebfbc9bb6cd2afb1421ce740bb2019b2', 'RENEWED', 1795338914549471, 1795338014549930, 1795338014768647, 1795341616351909, NULL),
	('\x01a2027c158a72fbaced7dca5ea7b43f', '\x01a2027c03c0745fb3c2d54719a5ee2d', '\x01a2027c0f557779ac50875a0217ea19', 3600000000, 'default', 'amf-1', 'amf-2', '\x01a2027c150c731d85342fcfde9dab8b', '\x3c6adee620746e4f96c13b14309a5b841d16d97691c553c9daa73d6151f8ee54', 'CONFIRMED', 1795338916137841, 1795338016144766, 1795338016351909, NULL, NULL),
	('\x01a2027c0bf875a9a9e38cd5f93f9bf2', '\x01a2027c01dd77deb22383f953614bb0', NULL, NULL, 'default', 'amf-1', 'amf-1', '\x01a2027c0b9374838886abe4f126229a', '\x28ca3f2dd6e01ecf0612457073e1fece2bd392a52fbf061d5e2f2f97864fd2ff', 'RELEASED', 1795338913684947, 1795338013689052, 1795338013916927, NULL, 1795338017062444);


--
-- Data for Name: credentials; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.credentials VALUES
	('\x01a2027c027275e4bb55dd27d5355ec5', 'default', '\x01a2027c008e752cb94ef15e7d4bda11', '\x01a2027c0197723ca384d6321a58ab24', 'DELIVERED', '\xea47c04249716235126dd2298875f0ac521212a9a712549223600025fd9a83d4', '\x3059301306072a8648ce3d020106082a8648ce3d030107034200048c635648c2221a5a65a74be3eead0a1270772e6e8efc19bad3e1db13799e8bf267660f41a84d961a4f6f7a20c3d2575b7fd7215401e1ae8eb8c9b1d6c77d75be', 1795535111000000, 1795338011273203, '\x01a2027c0f557779ac50875a0217ea19', 'client', 1795338014549930, 1795338014768647, NULL, NULL, NULL, NULL, NULL),
	('\x01a2027c1037754c89d63c88f9174ea2', 'default', '\x01a2027c008e752cb94ef15e7d4bda11', '\x01a2027c0197723ca384d6321a58ab24', 'DELIVERED', '\xc6fb971b597ad7f7a59cfc0aa169023bd06471899730a49c9b9260df3a80dfa0', '\x3059301306072a8648ce3d020106082a8648ce3d03010703420004531ce79acd3fdaf94919dd9cb02235f181f98ad16c26efec842770eded9af257e876f10ba38fe17967a8e98bd61fb36e92dfb93441af206047614e7ac208acff', 1795523450000000, 1795338014782250, '\x01a2027c158a72fbaced7dca5ea7b43f', 'client', 1795338016144766, 1795338016351909, NULL, NULL, NULL, NULL, NULL),
	('\x01a2027c129c734f8a193741f4b82b2b', 'default', '\x01a2027c008e752cb94ef15e7d4bda11', '\x01a2027c182c7238bae8aeb274c7729b', 'AVAILABLE', '\xee3518fbe7cf53440c13abb42dc65faabae03f10c79cdc19c9689a438fac758b', '\x3059301306072a8648ce3d020106082a8648ce3d03010703420004553831b1ce4d88b6fab34b24f79889020b5133de486c8c6494ad39f19581d829bb54b9f71ca673fa4d83c586814fafe3f3f542e1269ea107e9aa2c63e0aab6c9', 1795514647000000, 1795338015393518, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('\x01a2027c1699742eade9d632522cf45a', 'default', '\x01a2027c008e752cb94ef15e7d4bda11', '\x01a2027c182c7238bae8aeb274c7729b', 'AVAILABLE', '\xade8e47e880f778e558017cddd9d89985f43414121f1872066b156c79007d152', '\x3059301306072a8648ce3d020106082a8648ce3d0301070342000457e29e87ed7b44003337871644be4c7d0b3583b72a29fe4dfc8dc607d03c9b4501c03087393055797d121817bfe41531fdcb67ac5e8d21d5e9aa9b4e5265fdc6', 1795529467000000, 1795338016435796, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('\x01a2027c027275e4bb55dd264b8be90a', 'default', '\x01a2027c008e752cb94ef15e7d4bda11', '\x01a2027c0197723ca384d6321a58ab24', 'DELIVERED', '\x2c988becddacda6af44a3498280dcb2c9a140fed08527afe90e493507e933d23', '\x3059301306072a8648ce3d020106082a8648ce3d03010703420004f61b85e1e355709aab8635aeefa3684905ec47f0090d11ffa02344dad1887aa359d93ae36855539be106346466459e1c980166e69ebb64bfd2f40a8e27fec00b', 1795526111000000, 1795338011273203, '\x01a2027c0bf875a9a9e38cd5f93f9bf2', 'client', 1795338013689052, 1795338013916927, 1795338017062444, 'RELEASED', 'RELEASED_SIGNED', 'CESSATION_OF_OPERATION', '{"receipt":{"credential":"01a2027c-0272-75e4-bb55-dd264b8be90a","public_key":"2c988becddacda6af44a3498280dcb2c9a140fed08527afe90e493507e933d23","certificate_serial":"7c8658c2c9b105d7f734ef49e748c253","tenant":"default","vnfci":"amf-1","reason":"RELEASED","broker_copy":{"state":"SHREDDED","erased_at":1795338013916927,"epoch":"01a2027c-0197-723c-a384-d6321a58ab24","token_serial":"c458fe6071683e6c","ha_members_verified":1,"hsm_backup_retention":"unknown","effective_at":null},"holder_copy":"RELEASED_SIGNED","issued_at":1795338017129135},"signature":{"algorithm":"ED25519","key_id":"5b22d4fe46d22dc363269d3c4102992f3528b65082a50d2dc8501f4b6582303a","signature":"DcaCO86a78oRcwYOEFYXlzbCYCQx9caPe1O8OXcSNuP03hABQ3mBj0jAGCZTFUWntYL0DqBIHZgWQNuOCT3eBQ=="}}'),
	('\x01a2027c0cfc763197655ba5e08dd78a', 'default', '\x01a2027c008e752cb94ef15e7d4bda11', '\x01a2027c0197723ca384d6321a58ab24', 'DELIVERED', '\xf6368d798c137668be20024a935b70a29f54bd40b17021c09e5a2b245dd23580', '\x3059301306072a8648ce3d020106082a8648ce3d0301070342000408afc8c4a2d046d1016ee9136180d80c2fc185056b77e84d239b9c2345614690fadc872ba8f6494b55c1f6bf6bb05b12a3c31dacb0f27398d12ff0faa77539c6', 1795514594000000, 1795338013964412, '\x01a2027c11a8771a8ecdaecea4f9ed77', 'client', 1795338015160706, 1795338015390282, 1795338017416866, 'TERMINATED', 'UNKNOWN', 'CESSATION_OF_OPERATION', '{"receipt":{"credential":"01a2027c-0cfc-7631-9765-5ba5e08dd78a","public_key":"f6368d798c137668be20024a935b70a29f54bd40b17021c09e5a2b245dd23580","certificate_serial":"616276c84bbfddf581bb88d196bd74be","tenant":"default","vnfci":"amf-3","reason":"TERMINATED","broker_copy":{"state":"SHREDDED","erased_at":1795338015390282,"epoch":"01a2027c-0197-723c-a384-d6321a58ab24","token_serial":"c458fe6071683e6c","ha_members_verified":1,"hsm_backup_retention":"unknown","effective_at":null},"holder_copy":"UNKNOWN","issued_at":1795338017604852},"signature":{"algorithm":"ED25519","key_id":"5b22d4fe46d22dc363269d3c4102992f3528b65082a50d2dc8501f4b6582303a","signature":"D8K0LGfAnpI8KJ7JjH+T9HgooiG5XJIcL+K2w8ZZJdK4ZeI/4Xs/FlCM5f/12nYGtLZY9m2UE7zqCqgeAevaCQ=="}}');


--
-- Data for Name: crls; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.crls VALUES
	('\x01a2027beb3573d3aaa8a6305bf01f96', 0, 1, 0, '\x3081f730819e020101300a06082a8648ce3d040302303e31123010060355040a0c096b657962726f6b65723128302606035504030c1f6b657962726f6b657220726f6f742c20746f6b656e206b657962726f6b6572170d3236313132323039303030385a170d3236313132333039303030385aa02f302d301f0603551d230418301680143741914d21bf169ee9e700d91f263e863b26e023300a0603551d140403020101300a06082a8648ce3d040302034800304502205346dce5f5b1be9128e8945c10c2d735f3e5817df15a5de19d77f7df6a46694a022100c7708d74c682d19adc8442967bbad083c93b4b92f14c4bfdd73f5c6f8d5095f2', 1795338008000000, 1795424408000000),
	('\x01a2027bec8675f788eee954af3d93b5', 0, 3, 2, '\x308201563081fd020101300a06082a8648ce3d040302303931123010060355040a0c096b657962726f6b65723110300e060355040b0c0764656661756c743111300f06035504030c087375622d43412031170d3236313132323039303031375a170d3236313132333039303031375a3062302f0210616276c84bbfddf581bb88d196bd74be170d3236313132323039303031375a300c300a0603551d1504030a0105302f02107c8658c2c9b105d7f734ef49e748c253170d3236313132323039303031375a300c300a0603551d1504030a0105a02f302d301f0603551d230418301680144aa24b337674754ec712dd4a78b9dcdf9214eedf300a0603551d140403020103300a06082a8648ce3d0403020348003045022070e8ef7119ffcb47aeda126ca6409e43878529f4f716f8e1af541a1cd686fa3a022100a7e9c98db2e4dff9e33571e2f1cdf3862a8de6ed81d2c7b188f74ade160834db', 1795338017000000, 1795424417000000);


--
-- Data for Name: epoch_levels; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.epoch_levels VALUES
	('\x01a2027c0197723ca384d6321a58ab24', 4086, 2, 2),
	('\x01a2027c0197723ca384d6321a58ab24', 4087, 0, -1),
	('\x01a2027c0197723ca384d6321a58ab24', 4081, 0, -1),
	('\x01a2027c0197723ca384d6321a58ab24', 4092, 1, -1),
	('\x01a2027c0197723ca384d6321a58ab24', 4088, 2, 2),
	('\x01a2027c0197723ca384d6321a58ab24', 4090, 1, -1),
	('\x01a2027c182c7238bae8aeb274c7729b', 4090, 2, 2);


--
-- Data for Name: epochs; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.epochs VALUES
	('\x01a2027c182c7238bae8aeb274c7729b', 'default', 'OPEN', 1795338016813057, NULL, NULL, NULL),
	('\x01a2027c0197723ca384d6321a58ab24', 'default', 'DESTROYED', 1795338011032098, 1795338013916927, 1795338017032694, 'c458fe6071683e6c');


--
-- Data for Name: event_credentials; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.event_credentials VALUES
	('\x2c988becddacda6af44a3498280dcb2c9a140fed08527afe90e493507e933d23', '\x01a2027c028876ac9f082606cc8b2240'),
	('\xea47c04249716235126dd2298875f0ac521212a9a712549223600025fd9a83d4', '\x01a2027c028876ac9f082606cc8b2240'),
	('\x2c988becddacda6af44a3498280dcb2c9a140fed08527afe90e493507e933d23', '\x01a2027c0c1b72f88121907d59244fa3'),
	('\xf6368d798c137668be20024a935b70a29f54bd40b17021c09e5a2b245dd23580', '\x01a2027c0d0b75e299fae541731e1960'),
	('\x2c988becddacda6af44a3498280dcb2c9a140fed08527afe90e493507e933d23', '\x01a2027c0cd476d3a7a26d360683ba84'),
	('\xea47c04249716235126dd2298875f0ac521212a9a712549223600025fd9a83d4', '\x01a2027c0f5d7002a8b5ace9458f71a8'),
	('\xea47c04249716235126dd2298875f0ac521212a9a712549223600025fd9a83d4', '\x01a2027c102c754297a59e7dded763c0'),
	('\xc6fb971b597ad7f7a59cfc0aa169023bd06471899730a49c9b9260df3a80dfa0', '\x01a2027c103d706f8d973de90421b58f'),
	('\xf6368d798c137668be20024a935b70a29f54bd40b17021c09e5a2b245dd23580', '\x01a2027c11f472cabf5dee71d6dc75ea'),
	('\xee3518fbe7cf53440c13abb42dc65faabae03f10c79cdc19c9689a438fac758b', '\x01a2027c12a073bfab1630c6784f178b'),
	('\xf6368d798c137668be20024a935b70a29f54bd40b17021c09e5a2b245dd23580', '\x01a2027c129d71f8894fa33f00181a2d'),
	('\xc6fb971b597ad7f7a59cfc0aa169023bd06471899730a49c9b9260df3a80dfa0', '\x01a2027c15e9776da7365c5c87577afd'),
	('\xc6fb971b597ad7f7a59cfc0aa169023bd06471899730a49c9b9260df3a80dfa0', '\x01a2027c165f77d3952f2ab7e51ce0e2'),
	('\xade8e47e880f778e558017cddd9d89985f43414121f1872066b156c79007d152', '\x01a2027c16b376a8a2667882d90b20d2'),
	('\xade8e47e880f778e558017cddd9d89985f43414121f1872066b156c79007d152', '\x01a2027c18be76ddacc06fb522f74dde'),
	('\xee3518fbe7cf53440c13abb42dc65faabae03f10c79cdc19c9689a438fac758b', '\x01a2027c18be76ddacc06fb522f74dde'),
	('\x2c988becddacda6af44a3498280dcb2c9a140fed08527afe90e493507e933d23', '\x01a2027c192677f584c278f44bdf1676'),
	('\x2c988becddacda6af44a3498280dcb2c9a140fed08527afe90e493507e933d23', '\x01a2027c197273708feb8b96958fa146'),
	('\xf6368d798c137668be20024a935b70a29f54bd40b17021c09e5a2b245dd23580', '\x01a2027c1aa671e797a4ed7375b4fdc4'),
	('\xf6368d798c137668be20024a935b70a29f54bd40b17021c09e5a2b245dd23580', '\x01a2027c1b467729b97dd6f440ff0f00');


--
-- Data for Name: events; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.events VALUES
	(1, '\x01a2027bea6575029e5d442a6d52aea2', 1795338005093042, 'LOG_STARTED', 'broker', NULL, NULL, NULL, '{"id":"01a2027b-ea65-7502-9e5d-442a6d52aea2","time":1795338005093042,"kind":"LOG_STARTED","actor":"broker","tenant":null,"vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"origin":"keybroker/01a2027b-ea15-7074-929b-ad8e0aff01aa","previous":null,"reason":"init"}}', 18920),
	(2, '\x01a2027beb3573d3aaa8a6312b343cf9', 1795338005301229, 'ISSUER_ADDED', 'broker', NULL, NULL, NULL, '{"id":"01a2027b-eb35-73d3-aaa8-a6312b343cf9","time":1795338005301229,"kind":"ISSUER_ADDED","actor":"broker","tenant":null,"vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"certificate":"60a50cdf670fb6cf321f05f265419905bbd8ddff2d8c916a7d0d07bc25be3c31","generation":1,"issuer":"01a2027b-eb35-73d3-aaa8-a6305bf01f96","key_label":"keybroker:root:1","name":"main","not_after":2426058005000000,"serial":"6a7e37d1c480f9db3365189e6492cc90"}}', 18924),
	(3, '\x01a2027beb8176e0aa8052321b511725', 1795338005377723, 'TENANT_ADDED', 'broker', 'default', NULL, NULL, '{"id":"01a2027b-eb81-76e0-aa80-52321b511725","time":1795338005377723,"kind":"TENANT_ADDED","actor":"broker","tenant":"default","vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"tenant":"default"}}', 18925),
	(4, '\x01a2027bec8675f788eee9556458e793', 1795338005638120, 'ISSUER_ADDED', 'broker', 'default', NULL, NULL, '{"id":"01a2027b-ec86-75f7-88ee-e9556458e793","time":1795338005638120,"kind":"ISSUER_ADDED","actor":"broker","tenant":"default","vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"certificate":"9db209493f2aa525501d59171d8c8166abb531a5b7b114147360fe00f630baba","generation":1,"issuer":"01a2027b-ec86-75f7-88ee-e954af3d93b5","key_label":"keybroker:ca:default:1","name":"main","not_after":1953018005000000,"serial":"7553d413b00be892c70ffa801b69ad11"}}', 18930),
	(5, '\x01a2027beda176c8b5ecd28a1649ceaa', 1795338005919490, 'IDENTITY_ADDED', 'broker', NULL, NULL, NULL, '{"id":"01a2027b-eda1-76c8-b5ec-d28a1649ceaa","time":1795338005919490,"kind":"IDENTITY_ADDED","actor":"broker","tenant":null,"vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"certificate":"ed3b5cb19b7a7e77dc745d0bd8078884b9325b01420a2df4e9b951043f739c98","granted_vnfs":[],"identity":"operator","role":"operator"}}', 18933),
	(6, '\x01a2027bedf6728faf55a20df18361cd', 1795338006005355, 'IDENTITY_ADDED', 'broker', 'default', NULL, NULL, '{"id":"01a2027b-edf6-728f-af55-a20df18361cd","time":1795338006005355,"kind":"IDENTITY_ADDED","actor":"broker","tenant":"default","vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"certificate":"0d30726fea2dbf20da8d3d6a1cdce63c60b4c0720b978b655bea19bdf06444af","granted_vnfs":[],"identity":"nfvo","role":"nfvo"}}', 18936),
	(7, '\x01a2027bee5a76d1a01031d32b2d07e8', 1795338006104626, 'IDENTITY_ADDED', 'broker', 'default', NULL, NULL, '{"id":"01a2027b-ee5a-76d1-a010-31d32b2d07e8","time":1795338006104626,"kind":"IDENTITY_ADDED","actor":"broker","tenant":"default","vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"certificate":"fafb80e6da69862faf8907034291cec25ce45e67026b4e27cbe11a3f30e4589e","granted_vnfs":["amf-1"],"identity":"vnfm","role":"vnfm"}}', 18939),
	(8, '\x01a2027bee897047a813e48e65323992', 1795338006151197, 'IDENTITY_ADDED', 'broker', NULL, NULL, NULL, '{"id":"01a2027b-ee89-7047-a813-e48e65323992","time":1795338006151197,"kind":"IDENTITY_ADDED","actor":"broker","tenant":null,"vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"certificate":"0bb89567b92abe20606534b6214b310c9a0450ead5748af71bf8f65208101ead","granted_vnfs":[],"identity":"auditor","role":"auditor"}}', 18941),
	(9, '\x01a2027beeed715f8069cbfe8286e694', 1795338006237738, 'IDENTITY_ADDED', 'broker', 'default', NULL, NULL, '{"id":"01a2027b-eeed-715f-8069-cbfe8286e694","time":1795338006237738,"kind":"IDENTITY_ADDED","actor":"broker","tenant":"default","vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"certificate":"1dbf984f21d22db358ec101e3d9f4ea888ea53273cb5320081f2a45e5efab3db","granted_vnfs":[],"identity":"security-operator","role":"security-operator"}}', 18944),
	(10, '\x01a2027bf39171ed847ad6a85856458a', 1795338007348257, 'BROKER_STARTED', 'broker', NULL, NULL, NULL, '{"id":"01a2027b-f391-71ed-847a-d6a85856458a","time":1795338007348257,"kind":"BROKER_STARTED","actor":"broker","tenant":null,"vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"findings":[],"incarnation":1,"token_serial":"c458fe6071683e6c","version":"0.1.0"}}', 18964),
	(11, '\x01a2027bf5c9749799d231824b879045', 1795338007953089, 'CRL_SIGNED', 'broker', 'default', NULL, NULL, '{"id":"01a2027b-f5c9-7497-99d2-31824b879045","time":1795338007953089,"kind":"CRL_SIGNED","actor":"broker","tenant":"default","vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"crl":"eb59c9d37c15eb25a82b4b637da0a806fdc1d13bd93ce30d72e30e42625c7647","entries":0,"issuer":"01a2027b-ec86-75f7-88ee-e954af3d93b5","next_update":1795424407000000,"number":1,"shard":0,"this_update":1795338007000000}}', 18981),
	(12, '\x01a2027bf64d7522b7f3ba46d1f69807', 1795338008060608, 'OCSP_RESPONDER_CERTIFIED', 'broker', 'default', NULL, NULL, '{"id":"01a2027b-f64d-7522-b7f3-ba46d1f69807","time":1795338008060608,"kind":"OCSP_RESPONDER_CERTIFIED","actor":"broker","tenant":"default","vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"certificate":"d58704ac5a7f0a8088965f57ece090098b863c2212db663ecdd382ed9772bafd","issuer":"01a2027b-ec86-75f7-88ee-e954af3d93b5","key_label":"keybroker:ocsp:default:1","not_after":1795942808000000,"serial":"6cbb4bc70b0ddbb6cf53947afe73c73f"}}', 18983),
	(13, '\x01a2027bf6817566bc056ebd2519cb75', 1795338008166134, 'CRL_SIGNED', 'broker', NULL, NULL, NULL, '{"id":"01a2027b-f681-7566-bc05-6ebd2519cb75","time":1795338008166134,"kind":"CRL_SIGNED","actor":"broker","tenant":null,"vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"crl":"8f1abf75acb17c19d3d348add37f5f746b64bc2b706d46dd2cfdc31cfc258193","entries":0,"issuer":"01a2027b-eb35-73d3-aaa8-a6305bf01f96","next_update":1795424408000000,"number":1,"shard":0,"this_update":1795338008000000}}', 18985),
	(14, '\x01a2027c008e752cb94ef15f95800889', 1795338010766254, 'POOL_CREATED', 'nfvo:default/nfvo', 'default', 'amf-1', NULL, '{"id":"01a2027c-008e-752c-b94e-f15f95800889","time":1795338010766254,"kind":"POOL_CREATED","actor":"nfvo:default/nfvo","tenant":"default","vnf_instance":"amf-1","vnfci":null,"request":"01a2027c-0071-759a-a1ea-44ffc5bfd0c5","credentials":[],"details":{"name":"amf-transport","pool":"01a2027c-008e-752c-b94e-f15e7d4bda11","profile":"vnfci-transport","refill_below":1,"target":2}}', 19045),
	(15, '\x01a2027c0197723ca384d633b6d89790', 1795338011031545, 'EPOCH_CREATING', 'broker', 'default', NULL, NULL, '{"id":"01a2027c-0197-723c-a384-d633b6d89790","time":1795338011031545,"kind":"EPOCH_CREATING","actor":"broker","tenant":"default","vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"epoch":"01a2027c-0197-723c-a384-d6321a58ab24","kek_label":"keybroker:kek:default:01a2027c-0197-723c-a384-d6321a58ab24","reason":null,"token_serial":"c458fe6071683e6c"}}', 19053),
	(16, '\x01a2027c01de7336ae5253b773420c1b', 1795338011100899, 'VNFCIS_REGISTERED', 'nfvo:default/nfvo', 'default', NULL, NULL, '{"id":"01a2027c-01de-7336-ae52-53b773420c1b","time":1795338011100899,"kind":"VNFCIS_REGISTERED","actor":"nfvo:default/nfvo","tenant":"default","vnf_instance":null,"vnfci":null,"request":"01a2027c-01d9-774d-9071-8066b4ee1595","credentials":[],"details":{"vnfcis":[{"expires_at":1795424411100899,"initial_credential":"01a2027c-01dd-77de-b223-83f953614bb0","kind":"TOKEN","proof":null,"slots":["client amf-transport"],"vnfci":"amf-1"}]}}', 19055),
	(17, '\x01a2027c023a76af8a9deafb331ce559', 1795338011192873, 'EPOCH_OPENED', 'broker', 'default', NULL, NULL, '{"id":"01a2027c-023a-76af-8a9d-eafb331ce559","time":1795338011192873,"kind":"EPOCH_OPENED","actor":"broker","tenant":"default","vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"epoch":"01a2027c-0197-723c-a384-d6321a58ab24","kek_label":"keybroker:kek:default:01a2027c-0197-723c-a384-d6321a58ab24","reason":null,"token_serial":"c458fe6071683e6c"}}', 19061),
	(18, '\x01a2027c028876ac9f082606cc8b2240', 1795338011261857, 'KEYS_PRODUCED', 'broker', 'default', 'amf-1', NULL, '{"id":"01a2027c-0288-76ac-9f08-2606cc8b2240","time":1795338011261857,"kind":"KEYS_PRODUCED","actor":"broker","tenant":"default","vnf_instance":"amf-1","vnfci":null,"request":null,"credentials":[{"id":"01a2027c-0272-75e4-bb55-dd264b8be90a","public_key":"2c988becddacda6af44a3498280dcb2c9a140fed08527afe90e493507e933d23"},{"id":"01a2027c-0272-75e4-bb55-dd27d5355ec5","public_key":"ea47c04249716235126dd2298875f0ac521212a9a712549223600025fd9a83d4"}],"details":{"certificates":[{"certificate":"6bfe84bd015bdc6701c30ddfc4914420a2f985640af5afeca026cdd883552883","credential":"01a2027c-0272-75e4-bb55-dd264b8be90a","not_after":1795929311000000,"serial":"7c8658c2c9b105d7f734ef49e748c253"},{"certificate":"bb3530064284a7087b39f31c8526266e2c4fc4d5d743677aae435470099b7b03","credential":"01a2027c-0272-75e4-bb55-dd27d5355ec5","not_after":1795938311000000,"serial":"5dc0a05c15cf72a8ca82df6ae5ce3d50"}],"duration_us":1595,"epoch":"01a2027c-0197-723c-a384-d6321a58ab24","issuer":"01a2027b-ec86-75f7-88ee-e954af3d93b5","kek_label":"keybroker:kek:default:01a2027c-0197-723c-a384-d6321a58ab24","key_type":"EC_P256","mechanisms":["CKM_EC_KEY_PAIR_GEN","CKM_AES_KEY_GEN","CKM_AES_KEY_WRAP_PAD"],"pool":"01a2027c-008e-752c-b94e-f15e7d4bda11","profile":"vnfci-transport","token_serial":"c458fe6071683e6c"}}', 19062),
	(19, '\x01a2027c03cc76b1b931286eb82954a3', 1795338011581090, 'VNFCIS_REGISTERED', 'nfvo:default/nfvo', 'default', NULL, NULL, '{"id":"01a2027c-03cc-76b1-b931-286eb82954a3","time":1795338011581090,"kind":"VNFCIS_REGISTERED","actor":"nfvo:default/nfvo","tenant":"default","vnf_instance":null,"vnfci":null,"request":"01a2027c-03b0-7269-bec0-0fa33477e4c7","credentials":[],"details":{"vnfcis":[{"expires_at":1795424411581090,"initial_credential":"01a2027c-03c0-745f-b3c2-d54719a5ee2d","kind":"TOKEN","proof":null,"slots":["client amf-transport"],"vnfci":"amf-2"}]}}', 19068),
	(22, '\x01a2027c0c1b72f88121907d59244fa3', 1795338013684947, 'CLAIMED', 'vnfci:default/amf-1', 'default', 'amf-1', 'amf-1', '{"id":"01a2027c-0c1b-72f8-8121-907d59244fa3","time":1795338013684947,"kind":"CLAIMED","actor":"vnfci:default/amf-1","tenant":"default","vnf_instance":"amf-1","vnfci":"amf-1","request":"01a2027c-0b93-7483-8886-abe4f126229a","credentials":[{"id":"01a2027c-0272-75e4-bb55-dd264b8be90a","public_key":"2c988becddacda6af44a3498280dcb2c9a140fed08527afe90e493507e933d23"}],"details":{"claim":"01a2027c-0bf8-75a9-a9e3-8cd5f93f9bf2","confirm_by":1795338913684947,"initial_credential":"01a2027c-01dd-77de-b223-83f953614bb0","recipient_key":"28ca3f2dd6e01ecf0612457073e1fece2bd392a52fbf061d5e2f2f97864fd2ff","renews":null,"slots":[{"certificate":"6bfe84bd015bdc6701c30ddfc4914420a2f985640af5afeca026cdd883552883","credential":"01a2027c-0272-75e4-bb55-dd264b8be90a","epoch":"01a2027c-0197-723c-a384-d6321a58ab24","intent":null,"slot":"client"}],"suite":"ECDH_P256_CBCENC_KWP_V1"}}', 19122),
	(25, '\x01a2027c0f5d7002a8b5ace9458f71a8', 1795338014549471, 'CLAIMED', 'vnfci:default/amf-2', 'default', 'amf-1', 'amf-2', '{"id":"01a2027c-0f5d-7002-a8b5-ace9458f71a8","time":1795338014549471,"kind":"CLAIMED","actor":"vnfci:default/amf-2","tenant":"default","vnf_instance":"amf-1","vnfci":"amf-2","request":"01a2027c-0eb0-71cf-af67-4ecc345f7ed9","credentials":[{"id":"01a2027c-0272-75e4-bb55-dd27d5355ec5","public_key":"ea47c04249716235126dd2298875f0ac521212a9a712549223600025fd9a83d4"}],"details":{"claim":"01a2027c-0f55-7779-ac50-875a0217ea19","confirm_by":1795338914549471,"initial_credential":"01a2027c-03c0-745f-b3c2-d54719a5ee2d","recipient_key":"363e7a0b135976466e2ef2456d4593cfebfbc9bb6cd2afb1421ce740bb2019b2","renews":null,"slots":[{"certificate":"bb3530064284a7087b39f31c8526266e2c4fc4d5d743677aae435470099b7b03","credential":"01a2027c-0272-75e4-bb55-dd27d5355ec5","epoch":"01a2027c-0197-723c-a384-d6321a58ab24","intent":null,"slot":"client"}],"suite":"ECDH_P256_CBCENC_KWP_V1"}}', 19154),
	(27, '\x01a2027c103d706f8d973de90421b58f', 1795338014781811, 'KEYS_PRODUCED', 'broker', 'default', 'amf-1', NULL, '{"id":"01a2027c-103d-706f-8d97-3de90421b58f","time":1795338014781811,"kind":"KEYS_PRODUCED","actor":"broker","tenant":"default","vnf_instance":"amf-1","vnfci":null,"request":null,"credentials":[{"id":"01a2027c-1037-754c-89d6-3c88f9174ea2","public_key":"c6fb971b597ad7f7a59cfc0aa169023bd06471899730a49c9b9260df3a80dfa0"}],"details":{"certificates":[{"certificate":"766da1d2bf3dc488241771dece0c7b1be456667f21ec6e19f410c7552ebaf8d0","credential":"01a2027c-1037-754c-89d6-3c88f9174ea2","not_after":1795926650000000,"serial":"4fd8879252424b3ba51da1e8c815ee7d"}],"duration_us":851,"epoch":"01a2027c-0197-723c-a384-d6321a58ab24","issuer":"01a2027b-ec86-75f7-88ee-e954af3d93b5","kek_label":"keybroker:kek:default:01a2027c-0197-723c-a384-d6321a58ab24","key_type":"EC_P256","mechanisms":["CKM_EC_KEY_PAIR_GEN","CKM_AES_KEY_GEN","CKM_AES_KEY_WRAP_PAD"],"pool":"01a2027c-008e-752c-b94e-f15e7d4bda11","profile":"vnfci-transport","token_serial":"c458fe6071683e6c"}}', 19166),
	(33, '\x01a2027c16b376a8a2667882d90b20d2', 1795338016432558, 'KEYS_PRODUCED', 'broker', 'default', 'amf-1', NULL, '{"id":"01a2027c-16b3-76a8-a266-7882d90b20d2","time":1795338016432558,"kind":"KEYS_PRODUCED","actor":"broker","tenant":"default","vnf_instance":"amf-1","vnfci":null,"request":null,"credentials":[{"id":"01a2027c-1699-742e-ade9-d632522cf45a","public_key":"ade8e47e880f778e558017cddd9d89985f43414121f1872066b156c79007d152"}],"details":{"certificates":[{"certificate":"7eb07f0ff961e83e082c2b44eeccba83aca20469a21de42b4526bde3cbc66cfa","credential":"01a2027c-1699-742e-ade9-d632522cf45a","not_after":1795932667000000,"serial":"619e5a2bc5936adc093b41ae2547433d"}],"duration_us":6978,"epoch":"01a2027c-0197-723c-a384-d6321a58ab24","issuer":"01a2027b-ec86-75f7-88ee-e954af3d93b5","kek_label":"keybroker:kek:default:01a2027c-0197-723c-a384-d6321a58ab24","key_type":"EC_P256","mechanisms":["CKM_EC_KEY_PAIR_GEN","CKM_AES_KEY_GEN","CKM_AES_KEY_WRAP_PAD"],"pool":"01a2027c-008e-752c-b94e-f15e7d4bda11","profile":"vnfci-transport","token_serial":"c458fe6071683e6c"}}', 19215),
	(34, '\x01a2027c16b9725380960092cc6638c7', 1795338016441740, 'EPOCH_CLOSED', 'broker', 'default', NULL, NULL, '{"id":"01a2027c-16b9-7253-8096-0092cc6638c7","time":1795338016441740,"kind":"EPOCH_CLOSED","actor":"broker","tenant":"default","vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"epoch":"01a2027c-0197-723c-a384-d6321a58ab24","kek_label":"keybroker:kek:default:01a2027c-0197-723c-a384-d6321a58ab24","reason":"HORIZON_NEARS","token_serial":"c458fe6071683e6c"}}', 19216),
	(20, '\x01a2027c058577faba1b37d70dbe054a', 1795338012005246, 'VNFCIS_REGISTERED', 'nfvo:default/nfvo', 'default', NULL, NULL, '{"id":"01a2027c-0585-77fa-ba1b-37d70dbe054a","time":1795338012005246,"kind":"VNFCIS_REGISTERED","actor":"nfvo:default/nfvo","tenant":"default","vnf_instance":null,"vnfci":null,"request":"01a2027c-0533-768d-be61-c59b6600660a","credentials":[],"details":{"vnfcis":[{"expires_at":1795424412005246,"initial_credential":"01a2027c-0580-749c-9c16-f3bde0996223","kind":"TOKEN","proof":null,"slots":["client amf-transport"],"vnfci":"amf-3"}]}}', 19083),
	(21, '\x01a2027c07e677fdbf8724e0c31da3ab', 1795338012645376, 'VNFCIS_REGISTERED', 'nfvo:default/nfvo', 'default', NULL, NULL, '{"id":"01a2027c-07e6-77fd-bf87-24e0c31da3ab","time":1795338012645376,"kind":"VNFCIS_REGISTERED","actor":"nfvo:default/nfvo","tenant":"default","vnf_instance":null,"vnfci":null,"request":"01a2027c-07bd-7788-b6e5-5cf95fc2bace","credentials":[],"details":{"vnfcis":[{"expires_at":1795424412645376,"initial_credential":"01a2027c-07e5-722a-b2ed-6855eaac02c5","kind":"TOKEN","proof":null,"slots":["client amf-transport"],"vnfci":"amf-4"}]}}', 19097),
	(28, '\x01a2027c11f472cabf5dee71d6dc75ea', 1795338015144586, 'CLAIMED', 'vnfci:default/amf-3', 'default', 'amf-1', 'amf-3', '{"id":"01a2027c-11f4-72ca-bf5d-ee71d6dc75ea","time":1795338015144586,"kind":"CLAIMED","actor":"vnfci:default/amf-3","tenant":"default","vnf_instance":"amf-1","vnfci":"amf-3","request":"01a2027c-1184-7233-a715-c81fa422f06a","credentials":[{"id":"01a2027c-0cfc-7631-9765-5ba5e08dd78a","public_key":"f6368d798c137668be20024a935b70a29f54bd40b17021c09e5a2b245dd23580"}],"details":{"claim":"01a2027c-11a8-771a-8ecd-aecea4f9ed77","confirm_by":1795338915144586,"initial_credential":"01a2027c-0580-749c-9c16-f3bde0996223","recipient_key":"edbe1de694387a3a412ec76eadf6e5a54f922afd023432827079cd8aa1af1d52","renews":null,"slots":[{"certificate":"fbba962147debdc5e19022d634b34646a51a9f3500dd215f87362c0e11f8004d","credential":"01a2027c-0cfc-7631-9765-5ba5e08dd78a","epoch":"01a2027c-0197-723c-a384-d6321a58ab24","intent":null,"slot":"client"}],"suite":"ECDH_P256_CBCENC_KWP_V1"}}', 19174),
	(36, '\x01a2027c18b877cfae7968be03314cf4', 1795338016947814, 'EPOCH_OPENED', 'broker', 'default', NULL, NULL, '{"id":"01a2027c-18b8-77cf-ae79-68be03314cf4","time":1795338016947814,"kind":"EPOCH_OPENED","actor":"broker","tenant":"default","vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"epoch":"01a2027c-182c-7238-bae8-aeb274c7729b","kek_label":"keybroker:kek:default:01a2027c-182c-7238-bae8-aeb274c7729b","reason":null,"token_serial":"c458fe6071683e6c"}}', 19234),
	(38, '\x01a2027c18d977a6aad7985b37321084', 1795338016985631, 'EPOCH_SHREDDING', 'broker', 'default', NULL, NULL, '{"id":"01a2027c-18d9-77a6-aad7-985b37321084","time":1795338016985631,"kind":"EPOCH_SHREDDING","actor":"broker","tenant":"default","vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"epoch":"01a2027c-0197-723c-a384-d6321a58ab24","kek_label":"keybroker:kek:default:01a2027c-0197-723c-a384-d6321a58ab24","reason":"EMPTY","token_serial":"c458fe6071683e6c"}}', 19238),
	(43, '\x01a2027c1aa671e797a4ed7375b4fdc4', 1795338017415808, 'TERMINATED', 'nfvo:default/nfvo', 'default', 'amf-1', 'amf-3', '{"id":"01a2027c-1aa6-71e7-97a4-ed7375b4fdc4","time":1795338017415808,"kind":"TERMINATED","actor":"nfvo:default/nfvo","tenant":"default","vnf_instance":"amf-1","vnfci":"amf-3","request":"01a2027c-1a71-76fb-8899-7aa8bf56c7ff","credentials":[{"id":"01a2027c-0cfc-7631-9765-5ba5e08dd78a","public_key":"f6368d798c137668be20024a935b70a29f54bd40b17021c09e5a2b245dd23580"}],"details":{"holder_copy":"UNKNOWN","vnfcis":["amf-3"]}}', 19255),
	(23, '\x01a2027c0d0b75e299fae541731e1960', 1795338013963862, 'KEYS_PRODUCED', 'broker', 'default', 'amf-1', NULL, '{"id":"01a2027c-0d0b-75e2-99fa-e541731e1960","time":1795338013963862,"kind":"KEYS_PRODUCED","actor":"broker","tenant":"default","vnf_instance":"amf-1","vnfci":null,"request":null,"credentials":[{"id":"01a2027c-0cfc-7631-9765-5ba5e08dd78a","public_key":"f6368d798c137668be20024a935b70a29f54bd40b17021c09e5a2b245dd23580"}],"details":{"certificates":[{"certificate":"fbba962147debdc5e19022d634b34646a51a9f3500dd215f87362c0e11f8004d","credential":"01a2027c-0cfc-7631-9765-5ba5e08dd78a","not_after":1795917794000000,"serial":"616276c84bbfddf581bb88d196bd74be"}],"duration_us":12071,"epoch":"01a2027c-0197-723c-a384-d6321a58ab24","issuer":"01a2027b-ec86-75f7-88ee-e954af3d93b5","kek_label":"keybroker:kek:default:01a2027c-0197-723c-a384-d6321a58ab24","key_type":"EC_P256","mechanisms":["CKM_EC_KEY_PAIR_GEN","CKM_AES_KEY_GEN","CKM_AES_KEY_WRAP_PAD"],"pool":"01a2027c-008e-752c-b94e-f15e7d4bda11","profile":"vnfci-transport","token_serial":"c458fe6071683e6c"}}', 19133),
	(37, '\x01a2027c18be76ddacc06fb522f74dde', 1795338016958760, 'KEYS_REWRAPPED', 'broker', 'default', NULL, NULL, '{"id":"01a2027c-18be-76dd-acc0-6fb522f74dde","time":1795338016958760,"kind":"KEYS_REWRAPPED","actor":"broker","tenant":"default","vnf_instance":null,"vnfci":null,"request":null,"credentials":[{"id":"01a2027c-129c-734f-8a19-3741f4b82b2b","public_key":"ee3518fbe7cf53440c13abb42dc65faabae03f10c79cdc19c9689a438fac758b"},{"id":"01a2027c-1699-742e-ade9-d632522cf45a","public_key":"ade8e47e880f778e558017cddd9d89985f43414121f1872066b156c79007d152"}],"details":{"from":"01a2027c-0197-723c-a384-d6321a58ab24","reason":"HORIZON_NEARS","to":"01a2027c-182c-7238-bae8-aeb274c7729b"}}', 19235),
	(24, '\x01a2027c0cd476d3a7a26d360683ba84', 1795338013908585, 'CONFIRMED', 'vnfci:default/amf-1', 'default', 'amf-1', 'amf-1', '{"id":"01a2027c-0cd4-76d3-a7a2-6d360683ba84","time":1795338013908585,"kind":"CONFIRMED","actor":"vnfci:default/amf-1","tenant":"default","vnf_instance":"amf-1","vnfci":"amf-1","request":"01a2027c-0b93-7483-8886-abe58bbb2216","credentials":[{"id":"01a2027c-0272-75e4-bb55-dd264b8be90a","public_key":"2c988becddacda6af44a3498280dcb2c9a140fed08527afe90e493507e933d23"}],"details":{"certificates":["6bfe84bd015bdc6701c30ddfc4914420a2f985640af5afeca026cdd883552883"],"claim":"01a2027c-0bf8-75a9-a9e3-8cd5f93f9bf2","initial_credential":"01a2027c-01dd-77de-b223-83f953614bb0","recipient_key":"28ca3f2dd6e01ecf0612457073e1fece2bd392a52fbf061d5e2f2f97864fd2ff","renews":null}}', 19131),
	(40, '\x01a2027c192677f584c278f44bdf1676', 1795338017062116, 'RELEASED', 'vnfci:default/amf-1', 'default', 'amf-1', 'amf-1', '{"id":"01a2027c-1926-77f5-84c2-78f44bdf1676","time":1795338017062116,"kind":"RELEASED","actor":"vnfci:default/amf-1","tenant":"default","vnf_instance":"amf-1","vnfci":"amf-1","request":"01a2027c-0b93-7483-8886-abe6d1192d81","credentials":[{"id":"01a2027c-0272-75e4-bb55-dd264b8be90a","public_key":"2c988becddacda6af44a3498280dcb2c9a140fed08527afe90e493507e933d23"}],"details":{"certificates":["6bfe84bd015bdc6701c30ddfc4914420a2f985640af5afeca026cdd883552883"],"claim":"01a2027c-0bf8-75a9-a9e3-8cd5f93f9bf2","signatures":["MEYCIQCsQDKNSSXjFgvbi2o1J53NN+q7PL5bnvBo7neo90GP4QIhAM58/1+VLJ+aZibyumYhRT50H2+l84eScNxocbMCpl32"]}}', 19243),
	(26, '\x01a2027c102c754297a59e7dded763c0', 1795338014764614, 'CONFIRMED', 'vnfci:default/amf-2', 'default', 'amf-1', 'amf-2', '{"id":"01a2027c-102c-7542-97a5-9e7dded763c0","time":1795338014764614,"kind":"CONFIRMED","actor":"vnfci:default/amf-2","tenant":"default","vnf_instance":"amf-1","vnfci":"amf-2","request":"01a2027c-0eb0-71cf-af67-4ecd2b5d09a7","credentials":[{"id":"01a2027c-0272-75e4-bb55-dd27d5355ec5","public_key":"ea47c04249716235126dd2298875f0ac521212a9a712549223600025fd9a83d4"}],"details":{"certificates":["bb3530064284a7087b39f31c8526266e2c4fc4d5d743677aae435470099b7b03"],"claim":"01a2027c-0f55-7779-ac50-875a0217ea19","initial_credential":"01a2027c-03c0-745f-b3c2-d54719a5ee2d","recipient_key":"363e7a0b135976466e2ef2456d4593cfebfbc9bb6cd2afb1421ce740bb2019b2","renews":null}}', 19164),
	(29, '\x01a2027c12a073bfab1630c6784f178b', 1795338015390141, 'KEYS_PRODUCED', 'broker', 'default', 'amf-1', NULL, '{"id":"01a2027c-12a0-73bf-ab16-30c6784f178b","time":1795338015390141,"kind":"KEYS_PRODUCED","actor":"broker","tenant":"default","vnf_instance":"amf-1","vnfci":null,"request":null,"credentials":[{"id":"01a2027c-129c-734f-8a19-3741f4b82b2b","public_key":"ee3518fbe7cf53440c13abb42dc65faabae03f10c79cdc19c9689a438fac758b"}],"details":{"certificates":[{"certificate":"d6dce557e317660f63c7cd7c95258ae726ab17f4af8377f2a4f28b8895b0f9eb","credential":"01a2027c-129c-734f-8a19-3741f4b82b2b","not_after":1795917847000000,"serial":"5c146fcd864770a6fb432270cc4e54ce"}],"duration_us":1286,"epoch":"01a2027c-0197-723c-a384-d6321a58ab24","issuer":"01a2027b-ec86-75f7-88ee-e954af3d93b5","kek_label":"keybroker:kek:default:01a2027c-0197-723c-a384-d6321a58ab24","key_type":"EC_P256","mechanisms":["CKM_EC_KEY_PAIR_GEN","CKM_AES_KEY_GEN","CKM_AES_KEY_WRAP_PAD"],"pool":"01a2027c-008e-752c-b94e-f15e7d4bda11","profile":"vnfci-transport","token_serial":"c458fe6071683e6c"}}', 19185),
	(30, '\x01a2027c129d71f8894fa33f00181a2d', 1795338015387356, 'CONFIRMED', 'vnfci:default/amf-3', 'default', 'amf-1', 'amf-3', '{"id":"01a2027c-129d-71f8-894f-a33f00181a2d","time":1795338015387356,"kind":"CONFIRMED","actor":"vnfci:default/amf-3","tenant":"default","vnf_instance":"amf-1","vnfci":"amf-3","request":"01a2027c-1184-7233-a715-c8200e7c5422","credentials":[{"id":"01a2027c-0cfc-7631-9765-5ba5e08dd78a","public_key":"f6368d798c137668be20024a935b70a29f54bd40b17021c09e5a2b245dd23580"}],"details":{"certificates":["fbba962147debdc5e19022d634b34646a51a9f3500dd215f87362c0e11f8004d"],"claim":"01a2027c-11a8-771a-8ecd-aecea4f9ed77","initial_credential":"01a2027c-0580-749c-9c16-f3bde0996223","recipient_key":"edbe1de694387a3a412ec76eadf6e5a54f922afd023432827079cd8aa1af1d52","renews":null}}', 19184),
	(31, '\x01a2027c15e9776da7365c5c87577afd', 1795338016137841, 'CLAIMED', 'vnfci:default/amf-2', 'default', 'amf-1', 'amf-2', '{"id":"01a2027c-15e9-776d-a736-5c5c87577afd","time":1795338016137841,"kind":"CLAIMED","actor":"vnfci:default/amf-2","tenant":"default","vnf_instance":"amf-1","vnfci":"amf-2","request":"01a2027c-150c-731d-8534-2fcfde9dab8b","credentials":[{"id":"01a2027c-1037-754c-89d6-3c88f9174ea2","public_key":"c6fb971b597ad7f7a59cfc0aa169023bd06471899730a49c9b9260df3a80dfa0"}],"details":{"claim":"01a2027c-158a-72fb-aced-7dca5ea7b43f","confirm_by":1795338916137841,"initial_credential":"01a2027c-03c0-745f-b3c2-d54719a5ee2d","recipient_key":"3c6adee620746e4f96c13b14309a5b841d16d97691c553c9daa73d6151f8ee54","renews":"01a2027c-0f55-7779-ac50-875a0217ea19","slots":[{"certificate":"766da1d2bf3dc488241771dece0c7b1be456667f21ec6e19f410c7552ebaf8d0","credential":"01a2027c-1037-754c-89d6-3c88f9174ea2","epoch":"01a2027c-0197-723c-a384-d6321a58ab24","intent":null,"slot":"client"}],"suite":"ECDH_P256_CBCENC_KWP_V1"}}', 19201),
	(32, '\x01a2027c165f77d3952f2ab7e51ce0e2', 1795338016351425, 'CONFIRMED', 'vnfci:default/amf-2', 'default', 'amf-1', 'amf-2', '{"id":"01a2027c-165f-77d3-952f-2ab7e51ce0e2","time":1795338016351425,"kind":"CONFIRMED","actor":"vnfci:default/amf-2","tenant":"default","vnf_instance":"amf-1","vnfci":"amf-2","request":"01a2027c-150c-731d-8534-2fd0afdd57d7","credentials":[{"id":"01a2027c-1037-754c-89d6-3c88f9174ea2","public_key":"c6fb971b597ad7f7a59cfc0aa169023bd06471899730a49c9b9260df3a80dfa0"}],"details":{"certificates":["766da1d2bf3dc488241771dece0c7b1be456667f21ec6e19f410c7552ebaf8d0"],"claim":"01a2027c-158a-72fb-aced-7dca5ea7b43f","initial_credential":"01a2027c-03c0-745f-b3c2-d54719a5ee2d","recipient_key":"3c6adee620746e4f96c13b14309a5b841d16d97691c553c9daa73d6151f8ee54","renews":"01a2027c-0f55-7779-ac50-875a0217ea19"}}', 19207),
	(35, '\x01a2027c182c7238bae8aeb3079b3e83', 1795338016812738, 'EPOCH_CREATING', 'broker', 'default', NULL, NULL, '{"id":"01a2027c-182c-7238-bae8-aeb3079b3e83","time":1795338016812738,"kind":"EPOCH_CREATING","actor":"broker","tenant":"default","vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"epoch":"01a2027c-182c-7238-bae8-aeb274c7729b","kek_label":"keybroker:kek:default:01a2027c-182c-7238-bae8-aeb274c7729b","reason":null,"token_serial":"c458fe6071683e6c"}}', 19227),
	(39, '\x01a2027c190877398e747f6b8996148a', 1795338017032257, 'EPOCH_SHREDDED', 'broker', 'default', NULL, NULL, '{"id":"01a2027c-1908-7739-8e74-7f6b8996148a","time":1795338017032257,"kind":"EPOCH_SHREDDED","actor":"broker","tenant":"default","vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"epoch":"01a2027c-0197-723c-a384-d6321a58ab24","ha_members_verified":1,"kek_label":"keybroker:kek:default:01a2027c-0197-723c-a384-d6321a58ab24","token_serial":"c458fe6071683e6c"}}', 19240),
	(41, '\x01a2027c194d77d3857646a5cba0273f', 1795338017074831, 'CRL_SIGNED', 'broker', 'default', NULL, NULL, '{"id":"01a2027c-194d-77d3-8576-46a5cba0273f","time":1795338017074831,"kind":"CRL_SIGNED","actor":"broker","tenant":"default","vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"crl":"061627677bf5021beb296462bca8f8a492e031569c3711f887171a54f9d010e7","entries":1,"issuer":"01a2027b-ec86-75f7-88ee-e954af3d93b5","next_update":1795424417000000,"number":2,"shard":0,"this_update":1795338017000000}}', 19248),
	(42, '\x01a2027c197273708feb8b96958fa146', 1795338017112618, 'DESTRUCTION_RECEIPT', 'broker', 'default', NULL, 'amf-1', '{"id":"01a2027c-1972-7370-8feb-8b96958fa146","time":1795338017112618,"kind":"DESTRUCTION_RECEIPT","actor":"broker","tenant":"default","vnf_instance":null,"vnfci":"amf-1","request":null,"credentials":[{"id":"01a2027c-0272-75e4-bb55-dd264b8be90a","public_key":"2c988becddacda6af44a3498280dcb2c9a140fed08527afe90e493507e933d23"}],"details":{"receipt":{"broker_copy":{"effective_at":null,"epoch":"01a2027c-0197-723c-a384-d6321a58ab24","erased_at":1795338013916927,"ha_members_verified":1,"hsm_backup_retention":"unknown","state":"SHREDDED","token_serial":"c458fe6071683e6c"},"certificate_serial":"7c8658c2c9b105d7f734ef49e748c253","credential":"01a2027c-0272-75e4-bb55-dd264b8be90a","holder_copy":"RELEASED_SIGNED","issued_at":1795338017129135,"public_key":"2c988becddacda6af44a3498280dcb2c9a140fed08527afe90e493507e933d23","reason":"RELEASED","tenant":"default","vnfci":"amf-1"},"signature":{"algorithm":"ED25519","key_id":"5b22d4fe46d22dc363269d3c4102992f3528b65082a50d2dc8501f4b6582303a","signature":"DcaCO86a78oRcwYOEFYXlzbCYCQx9caPe1O8OXcSNuP03hABQ3mBj0jAGCZTFUWntYL0DqBIHZgWQNuOCT3eBQ=="}}}', 19250),
	(44, '\x01a2027c1b0271378eaf44f99b89ec51', 1795338017497494, 'CRL_SIGNED', 'broker', 'default', NULL, NULL, '{"id":"01a2027c-1b02-7137-8eaf-44f99b89ec51","time":1795338017497494,"kind":"CRL_SIGNED","actor":"broker","tenant":"default","vnf_instance":null,"vnfci":null,"request":null,"credentials":[],"details":{"crl":"a4b422f3000c4cfd86791f8fcf1b188e00583e586b4b43fab65469901fd4b968","entries":2,"issuer":"01a2027b-ec86-75f7-88ee-e954af3d93b5","next_update":1795424417000000,"number":3,"shard":0,"this_update":1795338017000000}}', 19263),
	(45, '\x01a2027c1b467729b97dd6f440ff0f00', 1795338017604561, 'DESTRUCTION_RECEIPT', 'broker', 'default', NULL, 'amf-3', '{"id":"01a2027c-1b46-7729-b97d-d6f440ff0f00","time":1795338017604561,"kind":"DESTRUCTION_RECEIPT","actor":"broker","tenant":"default","vnf_instance":null,"vnfci":"amf-3","request":null,"credentials":[{"id":"01a2027c-0cfc-7631-9765-5ba5e08dd78a","public_key":"f6368d798c137668be20024a935b70a29f54bd40b17021c09e5a2b245dd23580"}],"details":{"receipt":{"broker_copy":{"effective_at":null,"epoch":"01a2027c-0197-723c-a384-d6321a58ab24","erased_at":1795338015390282,"ha_members_verified":1,"hsm_backup_retention":"unknown","state":"SHREDDED","token_serial":"c458fe6071683e6c"},"certificate_serial":"616276c84bbfddf581bb88d196bd74be","credential":"01a2027c-0cfc-7631-9765-5ba5e08dd78a","holder_copy":"UNKNOWN","issued_at":1795338017604852,"public_key":"f6368d798c137668be20024a935b70a29f54bd40b17021c09e5a2b245dd23580","reason":"TERMINATED","tenant":"default","vnfci":"amf-3"},"signature":{"algorithm":"ED25519","key_id":"5b22d4fe46d22dc363269d3c4102992f3528b65082a50d2dc8501f4b6582303a","signature":"D8K0LGfAnpI8KJ7JjH+T9HgooiG5XJIcL+K2w8ZZJdK4ZeI/4Xs/FlCM5f/12nYGtLZY9m2UE7zqCqgeAevaCQ=="}}}', 19264);


--
-- Data for Name: heads; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.heads VALUES
	(13, '{"head":{"origin":"keybroker/01a2027b-ea15-7074-929b-ad8e0aff01aa","size":13,"hash":"9a31e3902aace884a521a688d7df4c5716ec38d6c854d6b4caff9d082555c4e7","time":1795338009974614},"signature":{"algorithm":"ED25519","key_id":"5b22d4fe46d22dc363269d3c4102992f3528b65082a50d2dc8501f4b6582303a","signature":"uGZIdXOqeijGJMBAYRAIom5Sdf8K1TMwRWxAu6/NlySR0JRK4rZ+CIAm17c7FSgSJ9zGaP6SPbJh5QX+kJOgAQ=="}}', 1795338010029428),
	(19, '{"head":{"origin":"keybroker/01a2027b-ea15-7074-929b-ad8e0aff01aa","size":19,"hash":"52ea03b2ea6970d74a81d628c280132990fb28009c8a006b4b38e257ebf93cd1","time":1795338012103424},"signature":{"algorithm":"ED25519","key_id":"5b22d4fe46d22dc363269d3c4102992f3528b65082a50d2dc8501f4b6582303a","signature":"uyS/ic28aeociCuoCx5qhqkDilLqOT9GiRv5t9LVa5JB3bRHmOK+okHerj/20kMUFhAze60+QxbIoFiVWpC+AA=="}}', 1795338012114063),
	(24, '{"head":{"origin":"keybroker/01a2027b-ea15-7074-929b-ad8e0aff01aa","size":24,"hash":"60b8c15bfdd5c9d15752a6314abda4fea6ab44f5d454dbbcfa717e9d4a7738b2","time":1795338014149562},"signature":{"algorithm":"ED25519","key_id":"5b22d4fe46d22dc363269d3c4102992f3528b65082a50d2dc8501f4b6582303a","signature":"vbkt3Lij7E5SZrF/YZhSAAho9YdrHn/vTjZflpd1XIuU0svZO9bqRiEdbEk/h+iJPN4sS6djLll4Vy5Z3848Dw=="}}', 1795338014169093),
	(30, '{"head":{"origin":"keybroker/01a2027b-ea15-7074-929b-ad8e0aff01aa","size":30,"hash":"a3df5f4903340d3d94d88f036957a69b093b3a18c89be99fb32e9eb5c062e10c","time":1795338016212620},"signature":{"algorithm":"ED25519","key_id":"5b22d4fe46d22dc363269d3c4102992f3528b65082a50d2dc8501f4b6582303a","signature":"sO06cURv9wJjQiovE5bHHjUEgsR1zMZjbmubpcq8ODRfZQZirIaOzXsbtQKWzFZdTfuulGDSzHdfDhmvWch0Dw=="}}', 1795338016268070),
	(45, '{"head":{"origin":"keybroker/01a2027b-ea15-7074-929b-ad8e0aff01aa","size":45,"hash":"997b357dd8febe5c590c3df712e56ff8342e7e936ff752eb6f9e9750138b4fe2","time":1795338018317058},"signature":{"algorithm":"ED25519","key_id":"5b22d4fe46d22dc363269d3c4102992f3528b65082a50d2dc8501f4b6582303a","signature":"S07tXoG9gij2SFNF0UDL/wrACmf9Xs/k7EEO4Ue6wYsXP2Us8t64FiCaH0lOHnOc2ym0o9bo9Z8xTh136/BmCg=="}}', 1795338018372751);


--
-- Data for Name: identities; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.identities VALUES
	('operator', 'operator', NULL, '[]', '\x30820245308201eba00302010202107c19a47c1eb6e0ce13a8e4acbaecaa90300a06082a8648ce3d040302303931123010060355040a0c096b657962726f6b65723110300e060355040b0c0764656661756c743111300f06035504030c087375622d43412031301e170d3236313132323038353930355a170d3237313132323039303030355a303a31123010060355040a0c096b657962726f6b65723111300f060355040b0c086f70657261746f723111300f06035504030c086f70657261746f723059301306072a8648ce3d020106082a8648ce3d030107034200041dca5fe00f74883de8b9f51819b3374c7370ac471e0c065aef5fd0f0223f7a02937d6b9a3ab70d62987f8292f732c0e4480c7fd8605a10708d0e2e9ef4d5dca4a381d33081d0300c0603551d130101ff04023000300e0603551d0f0101ff04040302078030130603551d25040c300a06082b06010505070302301d0603551d0e041604147d4f340bf377dc404bfe3f911186b32a2a2df392301f0603551d230418301680144aa24b337674754ec712dd4a78b9dcdf9214eedf305b0603551d1f045430523050a04ea04c864a687474703a2f2f6b657962726f6b65722e6578616d706c653a373038302f63726c2f30316132303237622d656338362d373566372d383865652d6539353461663364393362352e63726c300a06082a8648ce3d0403020348003045022021f7290c82d7ebc111f44b2947235a816ff2b23f2fb5f3d327101ea362f67c8d0221008add042e5a8ee23fb3f0dd6ec016b51ae3aa847e00cb76559cf77bd0cecfafa1', '\xed3b5cb19b7a7e77dc745d0bd8078884b9325b01420a2df4e9b951043f739c98', 1795338005919490),
	('nfvo', 'nfvo', 'default', '[]', '\x3082023d308201e3a0030201020210617907de7b62063dfe6d93c36269875a300a06082a8648ce3d040302303931123010060355040a0c096b657962726f6b65723110300e060355040b0c0764656661756c743111300f06035504030c087375622d43412031301e170d3236313132323038353930365a170d3237313132323039303030365a303231123010060355040a0c096b657962726f6b6572310d300b060355040b0c046e66766f310d300b06035504030c046e66766f3059301306072a8648ce3d020106082a8648ce3d03010703420004e10019e2c373513b185972fc0ef2aa098ab9e1844e8a0380577d70dd4057ba6d66aa4d60e2a8b37c407df19c092b0d9fd8b68f086abc6c6fb7d8392cced0f17da381d33081d0300c0603551d130101ff04023000300e0603551d0f0101ff04040302078030130603551d25040c300a06082b06010505070302301d0603551d0e04160414bdc3c0b4a88972169139b9db54b39ffc8024935c301f0603551d230418301680144aa24b337674754ec712dd4a78b9dcdf9214eedf305b0603551d1f045430523050a04ea04c864a687474703a2f2f6b657962726f6b65722e6578616d706c653a373038302f63726c2f30316132303237622d656338362d373566372d383865652d6539353461663364393362352e63726c300a06082a8648ce3d0403020348003045022059aedac8dc8dc6ff014da7445a8f44925759661ccf0d6933e7905d1b91761f62022100d003d2d708c947f6ae0fcd9a63bc95f0267062762fc5a925a0cbcb58705cbb86', '\x0d30726fea2dbf20da8d3d6a1cdce63c60b4c0720b978b655bea19bdf06444af', 1795338006005355),
	('vnfm', 'vnfm', 'default', '["amf-1"]', '\x3082023d308201e3a003020102021077265b5dea0fe923e67c6dd7232031e9300a06082a8648ce3d040302303931123010060355040a0c096b657962726f6b65723110300e060355040b0c0764656661756c743111300f06035504030c087375622d43412031301e170d3236313132323038353930365a170d3237313132323039303030365a303231123010060355040a0c096b657962726f6b6572310d300b060355040b0c04766e666d310d300b06035504030c04766e666d3059301306072a8648ce3d020106082a8648ce3d030107034200047ea9b0f89288ad5abf7eb1b98e20439929445a1d7d726910ffa292af3fea2198f6cb16c7322c6392bae9497332b88c08eb7ca8eec9bfa9b5ee1f28736c17db67a381d33081d0300c0603551d130101ff04023000300e0603551d0f0101ff04040302078030130603551d25040c300a06082b06010505070302301d0603551d0e041604141ac0d3b5cf2f9027bde2d5f419fd5c015b9cd526301f0603551d230418301680144aa24b337674754ec712dd4a78b9dcdf9214eedf305b0603551d1f045430523050a04ea04c864a687474703a2f2f6b657962726f6b65722e6578616d706c653a373038302f63726c2f30316132303237622d656338362d373566372d383865652d6539353461663364393362352e63726c300a06082a8648ce3d040302034800304502206efb0077debe16afc13b2a7b9406b678885cbce6c7e7105dea90cbaa2cb3ac54022100f47b5c005a4feaf3fd1a4589ba12fcc645fcbd2b7ed1cd16e07565ead990642f', '\xfafb80e6da69862faf8907034291cec25ce45e67026b4e27cbe11a3f30e4589e', 1795338006104626),
	('auditor', 'auditor', NULL, '[]', '\x30820243308201e9a0030201020210444c7bce2651e202a6c6c22134486272300a06082a8648ce3d040302303931123010060355040a0c096b657962726f6b65723110300e060355040b0c0764656661756c743111300f06035504030c087375622d43412031301e170d3236313132323038353930365a170d3237313132323039303030365a303831123010060355040a0c096b657962726f6b65723110300e060355040b0c0761756469746f723110300e06035504030c0761756469746f723059301306072a8648ce3d020106082a8648ce3d03010703420004d886f44736ddf984f050f7e69f26fc91fd2df0ee07540127b887f7c8a6f7a010023e171943942998e6a6531239ec6eea16a717f30b48858e137dcd5ff00c430ba381d33081d0300c0603551d130101ff04023000300e0603551d0f0101ff04040302078030130603551d25040c300a06082b06010505070302301d0603551d0e04160414107aeddd46b8232a1452f05a55153dd83ad39e00301f0603551d230418301680144aa24b337674754ec712dd4a78b9dcdf9214eedf305b0603551d1f045430523050a04ea04c864a687474703a2f2f6b657962726f6b65722e6578616d706c653a373038302f63726c2f30316132303237622d656338362d373566372d383865652d6539353461663364393362352e63726c300a06082a8648ce3d0403020348003045022100969bdf639e83ff146111dc3971994ccf73f286c19955f3a73b6d9c58f89e29a00220676e8d68527737a4b2ceacc0a5cf08f27d889be8a20d57271e9ad80d109c0034', '\x0bb89567b92abe20606534b6214b310c9a0450ead5748af71bf8f65208101ead', 1795338006151197),
	('security-operator', 'security-operator', 'default', '[]', '\x30820258308201fda003020102021067d2fdd14dadaeea3a97461ff8f72850300a06082a8648ce3d040302303931123010060355040a0c096b657962726f6b65723110300e060355040b0c0764656661756c743111300f06035504030c087375622d43412031301e170d3236313132323038353930365a170d3237313132323039303030365a304c31123010060355040a0c096b657962726f6b6572311a3018060355040b0c1173656375726974792d6f70657261746f72311a301806035504030c1173656375726974792d6f70657261746f723059301306072a8648ce3d020106082a8648ce3d03010703420004558cc5765593d022ef8fb1fc013d6b3ad385c033eb0dd4122f17675732ecdeec6dd28a0233229f90ac7e419ef64c1be31bf55d82f90397dd6870b94cea2a7ec5a381d33081d0300c0603551d130101ff04023000300e0603551d0f0101ff04040302078030130603551d25040c300a06082b06010505070302301d0603551d0e0416041474130cb68c8e843180616c3b882dec51b9fdada3301f0603551d230418301680144aa24b337674754ec712dd4a78b9dcdf9214eedf305b0603551d1f045430523050a04ea04c864a687474703a2f2f6b657962726f6b65722e6578616d706c653a373038302f63726c2f30316132303237622d656338362d373566372d383865652d6539353461663364393362352e63726c300a06082a8648ce3d0403020349003046022100cf82e71e50e5b7a22de8065231ad2406a52b1503067f67c7d954ae40d371afeb022100aa669f2ecead521a429b3b50886f5a0de14be283abf358a3c4f9db944199724c', '\x1dbf984f21d22db358ec101e3d9f4ea888ea53273cb5320081f2a45e5efab3db', 1795338006237738);


--
-- Data for Name: initial_credentials; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.initial_credentials VALUES
	('\x01a2027c07e5722ab2ed6855eaac02c5', 'default', 'amf-1', 'amf-4', 1, 'TOKEN', NULL, NULL, NULL, 'OPEN', 0, 1795424412645376, 1795338012646895),
	('\x01a2027c01dd77deb22383f953614bb0', 'default', 'amf-1', 'amf-1', 1, 'TOKEN', NULL, NULL, NULL, 'SPENT', 0, 1795424411100899, 1795338011102303),
	('\x01a2027c03c0745fb3c2d54719a5ee2d', 'default', 'amf-1', 'amf-2', 1, 'TOKEN', NULL, NULL, NULL, 'SPENT', 0, 1795424411581090, 1795338011597139),
	('\x01a2027c0580749c9c16f3bde0996223', 'default', 'amf-1', 'amf-3', 1, 'TOKEN', NULL, NULL, NULL, 'SPENT', 0, 1795424412005246, 1795338012038164);


--
-- Data for Name: issuers; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.issuers VALUES
	('\x01a2027beb3573d3aaa8a6305bf01f96', NULL, 'main', NULL, 1, 'keybroker:root:1', '\x308201be30820165a00302010202106a7e37d1c480f9db3365189e6492cc90300a06082a8648ce3d040302303e31123010060355040a0c096b657962726f6b65723128302606035504030c1f6b657962726f6b657220726f6f742c20746f6b656e206b657962726f6b6572301e170d3236313132323038353930355a170d3436313131373039303030355a303e31123010060355040a0c096b657962726f6b65723128302606035504030c1f6b657962726f6b657220726f6f742c20746f6b656e206b657962726f6b65723059301306072a8648ce3d020106082a8648ce3d030107034200043afc0c1e14fb1ef9245cee3e16146af7dabc9121a8419217e5761023d7910fed3c51992d39b62e915fe9e2e5d7d72f4d18cdf6e3da778593160d0a6c11255811a345304330120603551d130101ff040830060101ff020101300e0603551d0f0101ff040403020106301d0603551d0e041604143741914d21bf169ee9e700d91f263e863b26e023300a06082a8648ce3d040302034700304402204ac892e9793b270497768f9386858b8014c7d94ab5bbd980f25daec705416f0802202eeb09a51aa8246a69943fdea514b73810cbec6624aa936281d7b96514c8d6cb', '', 1795338005301229),
	('\x01a2027bec8675f788eee954af3d93b5', 'default', 'main', NULL, 1, 'keybroker:ca:default:1', '\x3082023b308201e0a00302010202107553d413b00be892c70ffa801b69ad11300a06082a8648ce3d040302303e31123010060355040a0c096b657962726f6b65723128302606035504030c1f6b657962726f6b657220726f6f742c20746f6b656e206b657962726f6b6572301e170d3236313132323038353930355a170d3331313132313039303030355a303931123010060355040a0c096b657962726f6b65723110300e060355040b0c0764656661756c743111300f06035504030c087375622d434120313059301306072a8648ce3d020106082a8648ce3d03010703420004928cffe75c7323e042211ef1df03db8c1ab44104169c44a2e3ace54fa340051959b00d48a3822632c88549f2878ee8a32d6e1dd1ddd394382cdb80f9312aa3a4a381c43081c130120603551d130101ff040830060101ff020100300e0603551d0f0101ff040403020106301d0603551d0e041604144aa24b337674754ec712dd4a78b9dcdf9214eedf301f0603551d230418301680143741914d21bf169ee9e700d91f263e863b26e023305b0603551d1f045430523050a04ea04c864a687474703a2f2f6b657962726f6b65722e6578616d706c653a373038302f63726c2f30316132303237622d656233352d373364332d616161382d6136333035626630316639362e63726c300a06082a8648ce3d0403020349003046022100ecb6d49bac0cb3f2350f31202cf58bbb96328b1744733579765d668fd2c9222c0221009a42c79563ae7a29246db553563e550f71c2bc7d3cc8b1bcbf3fc506f78fd0ed', '308201be30820165a00302010202106a7e37d1c480f9db3365189e6492cc90300a06082a8648ce3d040302303e31123010060355040a0c096b657962726f6b65723128302606035504030c1f6b657962726f6b657220726f6f742c20746f6b656e206b657962726f6b6572301e170d3236313132323038353930355a170d3436313131373039303030355a303e31123010060355040a0c096b657962726f6b65723128302606035504030c1f6b657962726f6b657220726f6f742c20746f6b656e206b657962726f6b65723059301306072a8648ce3d020106082a8648ce3d030107034200043afc0c1e14fb1ef9245cee3e16146af7dabc9121a8419217e5761023d7910fed3c51992d39b62e915fe9e2e5d7d72f4d18cdf6e3da778593160d0a6c11255811a345304330120603551d130101ff040830060101ff020101300e0603551d0f0101ff040403020106301d0603551d0e041604143741914d21bf169ee9e700d91f263e863b26e023300a06082a8648ce3d040302034700304402204ac892e9793b270497768f9386858b8014c7d94ab5bbd980f25daec705416f0802202eeb09a51aa8246a69943fdea514b73810cbec6624aa936281d7b96514c8d6cb', 1795338005638120);


--
-- Data for Name: key_blobs; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.key_blobs VALUES
	('\x01a2027c129c734f8a193741f4b82b2b', '\x013a1298547b7d6d7e007450be8942d9994645a89b7f145d2bc180f35754dcae7fb2cd6f0a400c959f1b07bbf24bd67a634a5d291c74376603e4e72c578fc76d52fbf3c2e7b33796bf675a4c9557fd6f3d', '\x01d5847863a31e3a12dfd64405a6e8a7dee3e84a7a553ca45c257f69afc9ff38174045526c531d61dc'),
	('\x01a2027c1699742eade9d632522cf45a', '\x0163b1e29101c9d04acaab867b322a5f9cab7e399659169e64ea326426ba9ebc33ac6f27a413b13e8baf3761d15e5929956ef8aa87b5cd3a6be8e584c830095162c5f57ec4dd9de8555cd931ff61d7cc4f', '\x01c3a6b851fb3b9344c8e38fc1cc24b14a4fad98b3801d597464a7e2bd45946abf32563b80cae7e208');


--
-- Data for Name: key_epochs; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.key_epochs VALUES
	('\x01a2027c129c734f8a193741f4b82b2b', '\x01a2027c0197723ca384d6321a58ab24'),
	('\x01a2027c1699742eade9d632522cf45a', '\x01a2027c0197723ca384d6321a58ab24');


--
-- Data for Name: leases; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.leases VALUES
	('publisher', '4058-01a2027b-f559-7268-bddf-b97b779d039d', 1, 0),
	('producer', '4058-01a2027b-f559-7268-bddf-b97b779d039d', 1, 0),
	('sweeper', '4058-01a2027b-f559-7268-bddf-b97b779d039d', 1, 0),
	('head', '4058-01a2027b-f559-7268-bddf-b97b779d039d', 1, 0),
	('sequencer', '4058-01a2027b-f559-7268-bddf-b97b779d039d', 1, 0),
	('enroller', '4058-01a2027b-f559-7268-bddf-b97b779d039d', 1, 0);


--
-- Data for Name: marks; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.marks VALUES
	('token_serial', 'c458fe6071683e6c'),
	('audit_origin', 'keybroker/01a2027b-ea15-7074-929b-ad8e0aff01aa'),
	('incarnation', '1'),
	('audit_mirror', '/var/lib/keybroker/audit-mirror'),
	('last_alive', '1795338027996849'),
	('writable_at', '2026-11-22T09:00:29.904865Z');


--
-- Data for Name: ocsp_responders; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.ocsp_responders VALUES
	('\x01a2027bec8675f788eee954af3d93b5', 'keybroker:ocsp:default:1', '\x308201ed30820192a00302010202106cbb4bc70b0ddbb6cf53947afe73c73f300a06082a8648ce3d040302303931123010060355040a0c096b657962726f6b65723110300e060355040b0c0764656661756c743111300f06035504030c087375622d43412031301e170d3236313132323038353930385a170d3236313132393039303030385a302d31123010060355040a0c096b657962726f6b65723117301506035504030c0e4f43535020726573706f6e6465723059301306072a8648ce3d020106082a8648ce3d03010703420004da36a8978a81375a0c258d5145b47fdcb3be2dabac335b510fd29cdda3d5975da741ee5f619c1f5653bf4be7a8299b18a999f29c417340741eb141bbb274bc04a38187308184300c0603551d130101ff04023000300e0603551d0f0101ff04040302078030130603551d25040c300a06082b06010505070309300f06092b060105050730010504020500301d0603551d0e04160414e25c989229938957cb3d8ad3091fa218d5337c65301f0603551d230418301680144aa24b337674754ec712dd4a78b9dcdf9214eedf300a06082a8648ce3d0403020349003046022100d09fc8691159893ffaba27e2b6a95c9145a614d5d9a723f5c6a74f4756cc5ec6022100d7c764ef232f555553fd4881baebbea0deafc63d9b694345c0eab7f0c255945f', 1795338008060608);


--
-- Data for Name: pool_levels; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.pool_levels VALUES
	('\x01a2027c008e752cb94ef15e7d4bda11', 'AVAILABLE', 4086, 2),
	('\x01a2027c008e752cb94ef15e7d4bda11', 'DELIVERED', 4087, 1),
	('\x01a2027c008e752cb94ef15e7d4bda11', 'CLAIMED', 4087, -1),
	('\x01a2027c008e752cb94ef15e7d4bda11', 'AVAILABLE', 4090, 1),
	('\x01a2027c008e752cb94ef15e7d4bda11', 'DRAWN', 4088, 2),
	('\x01a2027c008e752cb94ef15e7d4bda11', 'CLAIMED', 4088, 2),
	('\x01a2027c008e752cb94ef15e7d4bda11', 'AVAILABLE', 4079, -1),
	('\x01a2027c008e752cb94ef15e7d4bda11', 'DRAWN', 4079, 1),
	('\x01a2027c008e752cb94ef15e7d4bda11', 'CLAIMED', 4079, 1),
	('\x01a2027c008e752cb94ef15e7d4bda11', 'AVAILABLE', 4092, 1),
	('\x01a2027c008e752cb94ef15e7d4bda11', 'DELIVERED', 4081, 1),
	('\x01a2027c008e752cb94ef15e7d4bda11', 'AVAILABLE', 4081, -1),
	('\x01a2027c008e752cb94ef15e7d4bda11', 'DRAWN', 4081, 1),
	('\x01a2027c008e752cb94ef15e7d4bda11', 'CLAIMED', 4081, 0),
	('\x01a2027c008e752cb94ef15e7d4bda11', 'DELIVERED', 4092, 2),
	('\x01a2027c008e752cb94ef15e7d4bda11', 'CLAIMED', 4092, -2),
	('\x01a2027c008e752cb94ef15e7d4bda11', 'AVAILABLE', 4088, 0);


--
-- Data for Name: pools; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.pools VALUES
	('\x01a2027c008e752cb94ef15e7d4bda11', 'default', 'amf-transport', 'amf-1', 'amf-worker', 'vnfci-transport', 2, 1, 'ahead', 1795338010766254, NULL);


--
-- Data for Name: requests; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.requests VALUES
	('nfvo:default/nfvo', '\x01a2027c0071759aa1ea44ffc5bfd0c5', '\xc3eb6a0dc54f7dec9e61df2fe2411bef18b25e35b89fb471e521ab351dae592e', '{"id":"01a2027c-008e-752c-b94e-f15e7d4bda11","tenant":"default","name":"amf-transport","vnf_instance":"amf-1","vdu":"amf-worker","profile":"vnfci-transport","target":2,"refill_below":1,"issue":"ahead","created_at":1795338010766254}', 1795338010766846),
	('nfvo:default/nfvo', '\x01a2027c01d9774d90718066b4ee1595', '\x712b20f1c2f03d78d345f7ca4a1ff0ddaa8e05a22fabffe7e21a3d90f53ed577', '[{"Registered":{"id":"01a2027c-01dd-77de-b223-83f953614bb0","tenant":"default","vnf_instance":"amf-1","vnfci":"amf-1","generation":1,"kind":"Token","state":"OPEN","expires_at":1795424411100899}}]', 1795338011102303),
	('nfvo:default/nfvo', '\x01a2027c03b07269bec00fa33477e4c7', '\x761d9f15b91d9bcca3581c4dd57ff67d438565163813c6b81b43ea5ab26ec481', '[{"Registered":{"id":"01a2027c-03c0-745f-b3c2-d54719a5ee2d","tenant":"default","vnf_instance":"amf-1","vnfci":"amf-2","generation":1,"kind":"Token","state":"OPEN","expires_at":1795424411581090}}]', 1795338011597139),
	('nfvo:default/nfvo', '\x01a2027c0533768dbe61c59b6600660a', '\xc850a69f26daaaeeba1125caee045c9d11331429a0b041caa679152786394485', '[{"Registered":{"id":"01a2027c-0580-749c-9c16-f3bde0996223","tenant":"default","vnf_instance":"amf-1","vnfci":"amf-3","generation":1,"kind":"Token","state":"OPEN","expires_at":1795424412005246}}]', 1795338012038164),
	('nfvo:default/nfvo', '\x01a2027c07bd7788b6e55cf95fc2bace', '\x3ca0ddb878ab61892c39b357233f3bb3d3541f07be6cbaecb93b8524d3bfcedf', '[{"Registered":{"id":"01a2027c-07e5-722a-b2ed-6855eaac02c5","tenant":"default","vnf_instance":"amf-1","vnfci":"amf-4","generation":1,"kind":"Token","state":"OPEN","expires_at":1795424412645376}}]', 1795338012646895),
	('vnfci:default/amf-1', '\x01a2027c0b9374838886abe4f126229a', '\x7276771021b036c7ba7f9e95ab4ebf9d0615ac5876f0bed3909844e143782ee4', NULL, 1795338013689052),
	('vnfci:default/amf-1', '\x01a2027c0b9374838886abe58bbb2216', '\x2ac70280135f3d8682b80d816074e56aa7c1b1a3c615a6ffd812228dbf2821a5', NULL, 1795338013916927),
	('vnfci:default/amf-2', '\x01a2027c0eb071cfaf674ecc345f7ed9', '\xd56c3e44704f006aa721b7d861ec74cec8e20c1528853b5e2249ea472ede4ba6', NULL, 1795338014549930),
	('vnfci:default/amf-2', '\x01a2027c0eb071cfaf674ecd2b5d09a7', '\x0105ba65f89ef8c3bd2a6921a4967bcdec7a8a6fc57c1e78246669e463c9d969', NULL, 1795338014768647),
	('vnfci:default/amf-3', '\x01a2027c11847233a715c81fa422f06a', '\xe6538442befc009eb90b00ae6afda73c3058076bff8e328f0ac7ec6f399340b4', NULL, 1795338015160706),
	('vnfci:default/amf-3', '\x01a2027c11847233a715c8200e7c5422', '\xffaf0d62fca22630d73d0509ce1f700e545ae6856dca1860d9f56b73c5012889', NULL, 1795338015390282),
	('vnfci:default/amf-2', '\x01a2027c150c731d85342fcfde9dab8b', '\x67e13d091a78c5c011a93190777dcdbfd50e30c1d39b999108f4e9c965a75d14', NULL, 1795338016144766),
	('vnfci:default/amf-2', '\x01a2027c150c731d85342fd0afdd57d7', '\x973110ce3f16c50a31c438d248819951a6f189967cbe1ba25d4bdd56a4e52bd4', NULL, 1795338016351909),
	('vnfci:default/amf-1', '\x01a2027c0b9374838886abe6d1192d81', '\x04001ae435ba7dda1af1406a7c4fcd9bad3ab014cb2ceae9a0fe5ec5a9eba03b', NULL, 1795338017062444),
	('nfvo:default/nfvo', '\x01a2027c1a7176fb88997aa8bf56c7ff', '\x9beef17e47ecfeec8ef4da180a418e38d253116b9c7f4aaa58166200354e34be', '[{"Terminated":{"keys":[{"id":"01a2027c-0cfc-7631-9765-5ba5e08dd78a","public_key":"f6368d798c137668be20024a935b70a29f54bd40b17021c09e5a2b245dd23580"}],"revoked":[["01a2027b-ec86-75f7-88ee-e954af3d93b5","616276c84bbfddf581bb88d196bd74be"]]}}]', 1795338017416866);


--
-- Data for Name: revoked_serials; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: slots; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.slots VALUES
	('default', 'amf-1', 'client', '\x01a2027c008e752cb94ef15e7d4bda11', 'amf-transport'),
	('default', 'amf-2', 'client', '\x01a2027c008e752cb94ef15e7d4bda11', 'amf-transport'),
	('default', 'amf-3', 'client', '\x01a2027c008e752cb94ef15e7d4bda11', 'amf-transport'),
	('default', 'amf-4', 'client', '\x01a2027c008e752cb94ef15e7d4bda11', 'amf-transport');


--
-- Data for Name: tenants; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.tenants VALUES
	('default', 1795338005377723, NULL);


--
-- Data for Name: vnfcis; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.vnfcis VALUES
	('default', 'amf-4', 'amf-1', 'amf-worker', 'REGISTERED', '\x01a2027c07e5722ab2ed6855eaac02c5', 1795338012646895, NULL, NULL),
	('default', 'amf-2', 'amf-1', 'amf-worker', 'ACTIVE', '\x01a2027c03c0745fb3c2d54719a5ee2d', 1795338011597139, NULL, NULL),
	('default', 'amf-1', 'amf-1', 'amf-worker', 'RELEASED', '\x01a2027c01dd77deb22383f953614bb0', 1795338011102303, 1795338017062444, NULL),
	('default', 'amf-3', 'amf-1', 'amf-worker', 'TERMINATED', '\x01a2027c0580749c9c16f3bde0996223', 1795338012038164, 1795338017416866, NULL);


--
-- Name: certificates_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.certificates_id_seq', 6, true);


--
-- Name: events_seq_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.events_seq_seq', 45, true);


--
-- Name: _sqlx_migrations _sqlx_migrations_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public._sqlx_migrations
    ADD CONSTRAINT _sqlx_migrations_pkey PRIMARY KEY (version);


--
-- Name: anchor_crls anchor_crls_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.anchor_crls
    ADD CONSTRAINT anchor_crls_pkey PRIMARY KEY (tenant, anchor, fingerprint);


--
-- Name: anchors anchors_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.anchors
    ADD CONSTRAINT anchors_pkey PRIMARY KEY (tenant, name);


--
-- Name: audit_chain audit_chain_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.audit_chain
    ADD CONSTRAINT audit_chain_pkey PRIMARY KEY (idx);


--
-- Name: certificate_requests certificate_requests_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.certificate_requests
    ADD CONSTRAINT certificate_requests_pkey PRIMARY KEY (credential);


--
-- Name: certificates certificates_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.certificates
    ADD CONSTRAINT certificates_pkey PRIMARY KEY (id);


--
-- Name: claims claims_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.claims
    ADD CONSTRAINT claims_pkey PRIMARY KEY (id);


--
-- Name: credentials credentials_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.credentials
    ADD CONSTRAINT credentials_pkey PRIMARY KEY (id);


--
-- Name: crls crls_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.crls
    ADD CONSTRAINT crls_pkey PRIMARY KEY (issuer, shard);


--
-- Name: epoch_levels epoch_levels_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.epoch_levels
    ADD CONSTRAINT epoch_levels_pkey PRIMARY KEY (epoch, stripe);


--
-- Name: epochs epochs_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.epochs
    ADD CONSTRAINT epochs_pkey PRIMARY KEY (id);


--
-- Name: event_credentials event_credentials_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.event_credentials
    ADD CONSTRAINT event_credentials_pkey PRIMARY KEY (public_key, event_id);


--
-- Name: events events_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (seq);


--
-- Name: heads heads_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.heads
    ADD CONSTRAINT heads_pkey PRIMARY KEY (size);


--
-- Name: identities identities_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.identities
    ADD CONSTRAINT identities_pkey PRIMARY KEY (name);


--
-- Name: initial_credentials initial_credentials_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.initial_credentials
    ADD CONSTRAINT initial_credentials_pkey PRIMARY KEY (id);


--
-- Name: issuers issuers_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.issuers
    ADD CONSTRAINT issuers_pkey PRIMARY KEY (id);


--
-- Name: key_blobs key_blobs_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.key_blobs
    ADD CONSTRAINT key_blobs_pkey PRIMARY KEY (credential);


--
-- Name: key_epochs key_epochs_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.key_epochs
    ADD CONSTRAINT key_epochs_pkey PRIMARY KEY (credential, epoch);


--
-- Name: leases leases_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.leases
    ADD CONSTRAINT leases_pkey PRIMARY KEY (name);


--
-- Name: marks marks_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.marks
    ADD CONSTRAINT marks_pkey PRIMARY KEY (name);


--
-- Name: ocsp_responders ocsp_responders_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.ocsp_responders
    ADD CONSTRAINT ocsp_responders_pkey PRIMARY KEY (issuer);


--
-- Name: pool_levels pool_levels_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.pool_levels
    ADD CONSTRAINT pool_levels_pkey PRIMARY KEY (pool, key_state, stripe);


--
-- Name: pools pools_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.pools
    ADD CONSTRAINT pools_pkey PRIMARY KEY (id);


--
-- Name: requests requests_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.requests
    ADD CONSTRAINT requests_pkey PRIMARY KEY (caller, request_id);


--
-- Name: revoked_serials revoked_serials_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.revoked_serials
    ADD CONSTRAINT revoked_serials_pkey PRIMARY KEY (issuer, serial);


--
-- Name: slots slots_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.slots
    ADD CONSTRAINT slots_pkey PRIMARY KEY (tenant, vnfci, name);


--
-- Name: tenants tenants_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.tenants
    ADD CONSTRAINT tenants_pkey PRIMARY KEY (id);


--
-- Name: vnfcis vnfcis_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.vnfcis
    ADD CONSTRAINT vnfcis_pkey PRIMARY KEY (tenant, id);


--
-- Name: anchor_crls_fingerprint; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX anchor_crls_fingerprint ON public.anchor_crls USING btree (fingerprint);


--
-- Name: anchors_fingerprint; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX anchors_fingerprint ON public.anchors USING btree (fingerprint);


--
-- Name: anchors_public_key; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX anchors_public_key ON public.anchors USING btree (public_key);


--
-- Name: audit_chain_event; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX audit_chain_event ON public.audit_chain USING btree (event_id);


--
-- Name: certificates_credential; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX certificates_credential ON public.certificates USING btree (credential, turn);


--
-- Name: certificates_expiry; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX certificates_expiry ON public.certificates USING btree (not_after) WHERE (state = ANY (ARRAY['VALID'::text, 'SUPERSEDED'::text]));


--
-- Name: certificates_pending; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX certificates_pending ON public.certificates USING btree (issuer) WHERE (state = 'REVOCATION_PENDING'::text);


--
-- Name: certificates_revoked; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX certificates_revoked ON public.certificates USING btree (issuer, not_after) WHERE (state = 'REVOKED'::text);


--
-- Name: certificates_serial; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX certificates_serial ON public.certificates USING btree (issuer, serial);


--
-- Name: certificates_sha256; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX certificates_sha256 ON public.certificates USING btree (sha256);


--
-- Name: claims_deadline; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX claims_deadline ON public.claims USING btree (deadline) WHERE (state = 'OPEN'::text);


--
-- Name: claims_one_open; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX claims_one_open ON public.claims USING btree (initial_credential) WHERE (state = 'OPEN'::text);


--
-- Name: claims_overlap; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX claims_overlap ON public.claims USING btree (overlap_ends_at) WHERE (state = 'RENEWED'::text);


--
-- Name: claims_renews; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX claims_renews ON public.claims USING btree (renews) WHERE (renews IS NOT NULL);


--
-- Name: claims_vnfci; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX claims_vnfci ON public.claims USING btree (tenant, vnfci);


--
-- Name: credentials_claim_slot; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX credentials_claim_slot ON public.credentials USING btree (claim_id, slot) WHERE (claim_id IS NOT NULL);


--
-- Name: credentials_draw; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX credentials_draw ON public.credentials USING btree (pool, epoch, id, usable_until) WHERE (key_state = 'AVAILABLE'::text);


--
-- Name: credentials_draw_uncertified; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX credentials_draw_uncertified ON public.credentials USING btree (pool, epoch, id) WHERE (key_state = 'GENERATED'::text);


--
-- Name: credentials_live; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX credentials_live ON public.credentials USING btree (epoch, id) WHERE (erased_at IS NULL);


--
-- Name: credentials_public_key; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX credentials_public_key ON public.credentials USING btree (public_key_sha256);


--
-- Name: credentials_receipt_due; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX credentials_receipt_due ON public.credentials USING btree (custody_ended_at) WHERE ((custody_ended_at IS NOT NULL) AND (claim_id IS NOT NULL) AND (receipt IS NULL));


--
-- Name: credentials_unclaimed; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX credentials_unclaimed ON public.credentials USING btree (pool, usable_until) WHERE ((claim_id IS NULL) AND (erased_at IS NULL));


--
-- Name: epochs_one_open; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX epochs_one_open ON public.epochs USING btree (tenant) WHERE (state = ANY (ARRAY['CREATING'::text, 'OPEN'::text]));


--
-- Name: epochs_state; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX epochs_state ON public.epochs USING btree (state, id);


--
-- Name: events_id; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX events_id ON public.events USING btree (id);


--
-- Name: events_vnfci; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX events_vnfci ON public.events USING btree (vnfci, seq) WHERE (vnfci IS NOT NULL);


--
-- Name: events_xact; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX events_xact ON public.events USING btree (xact, seq);


--
-- Name: identities_fingerprint; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX identities_fingerprint ON public.identities USING btree (fingerprint);


--
-- Name: initial_credentials_fingerprint; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX initial_credentials_fingerprint ON public.initial_credentials USING btree (tenant, anchor, fingerprint) WHERE (fingerprint IS NOT NULL);


--
-- Name: initial_credentials_generation; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX initial_credentials_generation ON public.initial_credentials USING btree (tenant, vnfci, generation);


--
-- Name: initial_credentials_name; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX initial_credentials_name ON public.initial_credentials USING btree (tenant, anchor, name) WHERE (name IS NOT NULL);


--
-- Name: initial_credentials_one_open_fingerprint; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX initial_credentials_one_open_fingerprint ON public.initial_credentials USING btree (tenant, anchor, fingerprint) WHERE ((state = 'OPEN'::text) AND (fingerprint IS NOT NULL));


--
-- Name: initial_credentials_one_open_name; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX initial_credentials_one_open_name ON public.initial_credentials USING btree (tenant, anchor, name) WHERE ((state = 'OPEN'::text) AND (name IS NOT NULL));


--
-- Name: issuers_generation; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX issuers_generation ON public.issuers USING btree (COALESCE(tenant, ''::text), COALESCE(external, ''::text), generation);


--
-- Name: pools_name; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX pools_name ON public.pools USING btree (tenant, name) WHERE (deleted_at IS NULL);


--
-- Name: requests_created; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX requests_created ON public.requests USING btree (created_at);


--
-- Name: slots_pool; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX slots_pool ON public.slots USING btree (pool);


--
-- Name: vnfcis_vnf_instance; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX vnfcis_vnf_instance ON public.vnfcis USING btree (tenant, vnf_instance, state);


--
-- Name: credentials credentials_answered; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER credentials_answered AFTER UPDATE OF key_state ON public.credentials FOR EACH ROW WHEN (((old.key_state = 'GENERATED'::text) AND (new.key_state <> 'GENERATED'::text))) EXECUTE FUNCTION public.forget_certificate_request();


--
-- Name: credentials credentials_changed; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER credentials_changed AFTER UPDATE ON public.credentials REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION public.count_changed_credentials();


--
-- Name: credentials credentials_inserted; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER credentials_inserted AFTER INSERT ON public.credentials REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION public.count_inserted_credentials();


--
-- Name: anchor_crls anchor_crls_tenant_anchor_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.anchor_crls
    ADD CONSTRAINT anchor_crls_tenant_anchor_fkey FOREIGN KEY (tenant, anchor) REFERENCES public.anchors(tenant, name);


--
-- Name: anchors anchors_tenant_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.anchors
    ADD CONSTRAINT anchors_tenant_fkey FOREIGN KEY (tenant) REFERENCES public.tenants(id);


--
-- Name: audit_chain audit_chain_event_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.audit_chain
    ADD CONSTRAINT audit_chain_event_id_fkey FOREIGN KEY (event_id) REFERENCES public.events(id);


--
-- Name: certificate_requests certificate_requests_credential_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.certificate_requests
    ADD CONSTRAINT certificate_requests_credential_fkey FOREIGN KEY (credential) REFERENCES public.credentials(id);


--
-- Name: certificates certificates_credential_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.certificates
    ADD CONSTRAINT certificates_credential_fkey FOREIGN KEY (credential) REFERENCES public.credentials(id);


--
-- Name: certificates certificates_issuer_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.certificates
    ADD CONSTRAINT certificates_issuer_fkey FOREIGN KEY (issuer) REFERENCES public.issuers(id);


--
-- Name: claims claims_initial_credential_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.claims
    ADD CONSTRAINT claims_initial_credential_fkey FOREIGN KEY (initial_credential) REFERENCES public.initial_credentials(id);


--
-- Name: claims claims_renews_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.claims
    ADD CONSTRAINT claims_renews_fkey FOREIGN KEY (renews) REFERENCES public.claims(id);


--
-- Name: credentials credentials_claim_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.credentials
    ADD CONSTRAINT credentials_claim_id_fkey FOREIGN KEY (claim_id) REFERENCES public.claims(id);


--
-- Name: credentials credentials_epoch_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.credentials
    ADD CONSTRAINT credentials_epoch_fkey FOREIGN KEY (epoch) REFERENCES public.epochs(id);


--
-- Name: credentials credentials_pool_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.credentials
    ADD CONSTRAINT credentials_pool_fkey FOREIGN KEY (pool) REFERENCES public.pools(id);


--
-- Name: crls crls_issuer_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.crls
    ADD CONSTRAINT crls_issuer_fkey FOREIGN KEY (issuer) REFERENCES public.issuers(id);


--
-- Name: epoch_levels epoch_levels_epoch_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.epoch_levels
    ADD CONSTRAINT epoch_levels_epoch_fkey FOREIGN KEY (epoch) REFERENCES public.epochs(id);


--
-- Name: epochs epochs_tenant_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.epochs
    ADD CONSTRAINT epochs_tenant_fkey FOREIGN KEY (tenant) REFERENCES public.tenants(id);


--
-- Name: event_credentials event_credentials_event_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.event_credentials
    ADD CONSTRAINT event_credentials_event_id_fkey FOREIGN KEY (event_id) REFERENCES public.events(id);


--
-- Name: identities identities_tenant_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.identities
    ADD CONSTRAINT identities_tenant_fkey FOREIGN KEY (tenant) REFERENCES public.tenants(id);


--
-- Name: initial_credentials initial_credentials_tenant_vnfci_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.initial_credentials
    ADD CONSTRAINT initial_credentials_tenant_vnfci_fkey FOREIGN KEY (tenant, vnfci) REFERENCES public.vnfcis(tenant, id);


--
-- Name: key_blobs key_blobs_credential_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.key_blobs
    ADD CONSTRAINT key_blobs_credential_fkey FOREIGN KEY (credential) REFERENCES public.credentials(id);


--
-- Name: key_epochs key_epochs_credential_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.key_epochs
    ADD CONSTRAINT key_epochs_credential_fkey FOREIGN KEY (credential) REFERENCES public.credentials(id);


--
-- Name: key_epochs key_epochs_epoch_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.key_epochs
    ADD CONSTRAINT key_epochs_epoch_fkey FOREIGN KEY (epoch) REFERENCES public.epochs(id);


--
-- Name: ocsp_responders ocsp_responders_issuer_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.ocsp_responders
    ADD CONSTRAINT ocsp_responders_issuer_fkey FOREIGN KEY (issuer) REFERENCES public.issuers(id);


--
-- Name: pool_levels pool_levels_pool_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.pool_levels
    ADD CONSTRAINT pool_levels_pool_fkey FOREIGN KEY (pool) REFERENCES public.pools(id);


--
-- Name: pools pools_tenant_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.pools
    ADD CONSTRAINT pools_tenant_fkey FOREIGN KEY (tenant) REFERENCES public.tenants(id);


--
-- Name: revoked_serials revoked_serials_issuer_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.revoked_serials
    ADD CONSTRAINT revoked_serials_issuer_fkey FOREIGN KEY (issuer) REFERENCES public.issuers(id);


--
-- Name: slots slots_pool_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.slots
    ADD CONSTRAINT slots_pool_fkey FOREIGN KEY (pool) REFERENCES public.pools(id);


--
-- Name: slots slots_tenant_vnfci_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.slots
    ADD CONSTRAINT slots_tenant_vnfci_fkey FOREIGN KEY (tenant, vnfci) REFERENCES public.vnfcis(tenant, id);


--
-- Name: vnfcis vnfcis_tenant_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.vnfcis
    ADD CONSTRAINT vnfcis_tenant_fkey FOREIGN KEY (tenant) REFERENCES public.tenants(id);


--
-- PostgreSQL database dump complete
--



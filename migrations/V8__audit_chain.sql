-- The audit log's chains: every row sealed by its writer, linked to the one before, and signed in segments.

ALTER TABLE audit
    ADD COLUMN seal bytea NOT NULL DEFAULT '',
    -- Volatile, so that rows from before get the migration's own transaction.
    ADD COLUMN tx_id bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint);
-- Only rows from before this migration may be without a seal; the chain tells them as not written by a controller.
ALTER TABLE audit ALTER COLUMN seal DROP DEFAULT;
CREATE INDEX audit_in_order ON audit (tx_id, audit_id);
COMMENT ON COLUMN audit.seal IS 'HMAC-SHA256 over the row, under a key that follows from the controllers'' signing key.';
COMMENT ON COLUMN audit.tx_id IS 'Transaction that inserted it: once all older ones have ended, nothing can come before it any more.';

CREATE TABLE audit_links (
    tenant_id uuid NOT NULL,
    seq bigint NOT NULL CHECK (seq > 0),
    audit_id bigint NOT NULL,
    hash bytea NOT NULL,
    sealed boolean NOT NULL,
    PRIMARY KEY (tenant_id, seq),
    UNIQUE (tenant_id, audit_id)
);
COMMENT ON TABLE audit_links IS 'The chain of each log: one link for each row, in the order of chaining.';
COMMENT ON COLUMN audit_links.tenant_id IS 'The log.';
COMMENT ON COLUMN audit_links.seq IS 'Place in the chain, from 1, without gaps.';
COMMENT ON COLUMN audit_links.audit_id IS 'The row; no foreign key: a missing row must show.';
COMMENT ON COLUMN audit_links.hash IS 'SHA-256 over the link before, the row and its place.';
COMMENT ON COLUMN audit_links.sealed IS 'Whether the row''s seal was good when it was chained: that a controller has written it. Covered by the hash.';

CREATE TABLE audit_checkpoints (
    tenant_id uuid NOT NULL,
    seq bigint NOT NULL,
    hash bytea NOT NULL,
    at timestamptz NOT NULL,
    key_id text NOT NULL,
    signature bytea NOT NULL,
    PRIMARY KEY (tenant_id, seq)
);
COMMENT ON TABLE audit_checkpoints IS 'Signed links. What is dropped by retention ends at one of them, which stays.';
COMMENT ON COLUMN audit_checkpoints.tenant_id IS 'The log.';
COMMENT ON COLUMN audit_checkpoints.seq IS 'The signed link.';
COMMENT ON COLUMN audit_checkpoints.hash IS 'Its hash.';
COMMENT ON COLUMN audit_checkpoints.at IS 'When it was signed; part of what is signed.';
COMMENT ON COLUMN audit_checkpoints.key_id IS 'Id of the controller''s public key.';
COMMENT ON COLUMN audit_checkpoints.signature IS 'Ed25519 over log, place, hash and time.';

CREATE TABLE audit_heads (
    tenant_id uuid PRIMARY KEY,
    seq bigint NOT NULL,
    hash bytea NOT NULL,
    signed_seq bigint NOT NULL DEFAULT 0,
    unsigned_since timestamptz
);
CREATE INDEX audit_heads_unsigned ON audit_heads (unsigned_since) WHERE unsigned_since IS NOT NULL;
COMMENT ON TABLE audit_heads IS 'Where each chain goes on. A convenience: nothing is believed because it stands here.';
COMMENT ON COLUMN audit_heads.tenant_id IS 'The log.';
COMMENT ON COLUMN audit_heads.seq IS 'The last link.';
COMMENT ON COLUMN audit_heads.hash IS 'Its hash.';
COMMENT ON COLUMN audit_heads.signed_seq IS 'The last signed link.';
COMMENT ON COLUMN audit_heads.unsigned_since IS 'When the first link after that was made; null: all are signed.';

CREATE TABLE audit_cursor (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    tx_id bigint NOT NULL,
    audit_id bigint NOT NULL
);
INSERT INTO audit_cursor (tx_id, audit_id) VALUES (0, 0);
COMMENT ON TABLE audit_cursor IS 'How far the chainer has come, over all logs.';
COMMENT ON COLUMN audit_cursor.only_one IS 'There is one row.';
COMMENT ON COLUMN audit_cursor.tx_id IS 'Transaction of the last chained row.';
COMMENT ON COLUMN audit_cursor.audit_id IS 'Id of the last chained row.';

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['audit_links', 'audit_checkpoints', 'audit_heads']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY system_all ON %I TO trustfleet_system USING (true) WITH CHECK (true)', t);
        EXECUTE format('CREATE POLICY one_tenant ON %I TO trustfleet_api USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant())', t);
    END LOOP;
    -- Retention runs as the owner, inside the function below and nowhere else.
    FOREACH t IN ARRAY ARRAY['audit', 'audit_links', 'audit_checkpoints']
    LOOP
        EXECUTE format('CREATE POLICY retention ON %I TO CURRENT_USER USING (current_setting(''trustfleet.audit_retention'', true) = ''dropping'')', t);
    END LOOP;
END $$;

GRANT SELECT ON audit_links, audit_checkpoints, audit_heads, audit_cursor TO trustfleet_api, trustfleet_system;
GRANT INSERT ON audit_links, audit_checkpoints TO trustfleet_system;
GRANT INSERT, UPDATE ON audit_heads TO trustfleet_system;
GRANT UPDATE ON audit_cursor TO trustfleet_system;

CREATE FUNCTION audit_segments_drop(log uuid, up_to bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE dropped bigint;
BEGIN
    PERFORM set_config('trustfleet.audit_retention', 'dropping', true);
    IF NOT EXISTS (SELECT FROM public.audit_checkpoints c
                   WHERE c.tenant_id = log AND c.seq = up_to AND c.at < now() - interval '1 day') THEN
        RAISE EXCEPTION 'only whole segments that were signed more than a day ago can be dropped';
    END IF;
    DELETE FROM public.audit a USING public.audit_links l
        WHERE l.tenant_id = log AND l.seq <= up_to AND a.tenant_id = l.tenant_id AND a.audit_id = l.audit_id;
    GET DIAGNOSTICS dropped = ROW_COUNT;
    DELETE FROM public.audit_links l WHERE l.tenant_id = log AND l.seq <= up_to;
    DELETE FROM public.audit_checkpoints c WHERE c.tenant_id = log AND c.seq < up_to;
    PERFORM set_config('trustfleet.audit_retention', '', true);
    RETURN dropped;
END $$;
COMMENT ON FUNCTION audit_segments_drop(uuid, bigint) IS 'Retention: the one way in which the controllers'' roles can remove rows of the audit log.';
REVOKE ALL ON FUNCTION audit_segments_drop(uuid, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_segments_drop(uuid, bigint) TO trustfleet_system;

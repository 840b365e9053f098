-- Which key-encryption keys there are: a secret can be stored only under one of them, and one in use cannot be removed.

CREATE TABLE key_encryption_keys (
    kek_id text PRIMARY KEY,
    registered_at timestamptz NOT NULL
);
COMMENT ON TABLE key_encryption_keys IS 'Key-encryption keys that a controller has started with; ids only, never a key. Of no tenant.';
COMMENT ON COLUMN key_encryption_keys.kek_id IS 'Id of the key, made from a hash of it.';
COMMENT ON COLUMN key_encryption_keys.registered_at IS 'When a controller first started with it.';

-- Not checked for rows from before: the owner of the tables does not see them. The first start registers their key.
ALTER TABLE secrets ADD CONSTRAINT secrets_kek_id_fkey FOREIGN KEY (kek_id) REFERENCES key_encryption_keys (kek_id) NOT VALID;
CREATE INDEX secrets_by_kek ON secrets (kek_id);

GRANT SELECT, INSERT, DELETE ON key_encryption_keys TO trustfleet_system;
GRANT UPDATE (kek_id, ciphertext) ON secrets TO trustfleet_system;

-- As before, but for tables without a tenant that rows of a tenant refer to, of which this is the first.
CREATE OR REPLACE FUNCTION purge_tenant(gone uuid, most bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    t record;
    removed bigint;
    total bigint := 0;
BEGIN
    PERFORM FROM tenants WHERE tenant_id = gone AND state = 'deleted' AND purge_at <= now() FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    -- Whoever refers to others goes before them.
    FOR t IN
        WITH RECURSIVE below AS (
            SELECT c.oid, 0 AS depth FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
                  AND a.attname = 'tenant_id' AND c.relname <> 'tenants' AND c.relname NOT LIKE 'audit%'
            UNION ALL
            SELECT k.confrelid, b.depth + 1 FROM below b JOIN pg_constraint k ON k.conrelid = b.oid
            WHERE k.contype = 'f' AND k.confrelid <> k.conrelid AND k.confrelid <> 'public.tenants'::regclass
                  -- What belongs to no tenant stays.
                  AND EXISTS (SELECT FROM pg_attribute o WHERE o.attrelid = k.confrelid AND o.attname = 'tenant_id')
        )
        SELECT oid::regclass AS name FROM below GROUP BY oid ORDER BY max(depth), oid
    LOOP
        EXECUTE format('DELETE FROM %s WHERE ctid = ANY (ARRAY(SELECT ctid FROM %s WHERE tenant_id = $1 LIMIT $2))',
                       t.name, t.name) USING gone, most - total;
        GET DIAGNOSTICS removed = ROW_COUNT;
        total := total + removed;
        IF total >= most THEN
            RETURN total;
        END IF;
    END LOOP;
    DELETE FROM tenants WHERE tenant_id = gone;
    RETURN total + 1;
END $$;

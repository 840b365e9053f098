-- A tenant's life: suspended, deleted with a grace time, purged; how much it may have; whether changes need four eyes.

ALTER TABLE tenants
    ADD COLUMN state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'suspended', 'deleted')),
    ADD COLUMN state_reason text,
    ADD COLUMN state_since timestamptz,
    ADD COLUMN purge_at timestamptz,
    ADD COLUMN max_devices integer CHECK (max_devices >= 0),
    ADD COLUMN max_trustpoints integer CHECK (max_trustpoints >= 0),
    ADD COLUMN max_jobs_per_hour integer CHECK (max_jobs_per_hour >= 0),
    ADD COLUMN max_jobs_in_flight integer CHECK (max_jobs_in_flight >= 0),
    ADD COLUMN four_eyes boolean NOT NULL DEFAULT false,
    ADD CHECK ((state = 'deleted') = (purge_at IS NOT NULL));
CREATE INDEX tenants_to_purge ON tenants (purge_at) WHERE purge_at IS NOT NULL;
COMMENT ON COLUMN tenants.state IS 'suspended: everything can be read, nothing changed or published; deleted: only the platform sees it, until it is purged.';
COMMENT ON COLUMN tenants.state_reason IS 'Why, in the words of whoever suspended or deleted it.';
COMMENT ON COLUMN tenants.state_since IS 'Since when; null: it was never anything but active.';
COMMENT ON COLUMN tenants.purge_at IS 'When a deleted tenant may be purged; until then it can be restored.';
COMMENT ON COLUMN tenants.max_devices IS 'How many devices it may have; null: any number.';
COMMENT ON COLUMN tenants.max_trustpoints IS 'How many trustpoints it may have; null: any number.';
COMMENT ON COLUMN tenants.max_jobs_per_hour IS 'How many jobs it may ask for in an hour; null: any number.';
COMMENT ON COLUMN tenants.max_jobs_in_flight IS 'How many jobs it may have under way; null: any number.';
COMMENT ON COLUMN tenants.four_eyes IS 'Changes of CA servers and their anchors need the approval of another administrator.';

-- Purging. Neither of the controller's roles may delete these rows by itself: the function does it with its owner's right,
-- and row level security, forced upon the owner too, shows the owner only tenants whose grace time is over. A table that
-- comes later needs the policy `purge`, unless its rows are to outlive the tenant, as the audit log's do (`audit...`).
CREATE POLICY purge ON tenants TO CURRENT_USER USING (state = 'deleted' AND purge_at <= now());
DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['api_tokens', 'join_tokens', 'agents', 'secrets', 'entities', 'ca_servers', 'policies',
                             'devices', 'trustpoints', 'jobs', 'outbox', 'certificates']
    LOOP
        EXECUTE format('CREATE POLICY purge ON %I TO CURRENT_USER USING (EXISTS (SELECT FROM tenants d
            WHERE d.tenant_id = %I.tenant_id AND d.state = ''deleted'' AND d.purge_at <= now()))', t, t);
    END LOOP;
END $$;

CREATE FUNCTION purge_tenant(gone uuid, most bigint) RETURNS bigint
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
REVOKE ALL ON FUNCTION purge_tenant(uuid, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION purge_tenant(uuid, bigint) TO trustfleet_system;
COMMENT ON FUNCTION purge_tenant(uuid, bigint) IS 'Removes at most so many rows of a deleted tenant whose grace time is over, and at last the tenant; how many were removed, 0: there is nothing to do.';

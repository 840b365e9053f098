-- Every revision of what operators configure, with its author and reason. The present one stands in the object's own table.

CREATE TABLE revisions (
    tenant_id uuid NOT NULL REFERENCES tenants,
    object_kind text NOT NULL CHECK (object_kind IN ('entity', 'ca_server', 'policy')),
    object_id uuid NOT NULL,
    revision integer NOT NULL,
    spec jsonb NOT NULL,
    author text NOT NULL,
    reason text,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, object_kind, object_id, revision)
);
COMMENT ON TABLE revisions IS 'Revisions of entities, CA servers and policies, the present ones included; they go with their object.';
COMMENT ON COLUMN revisions.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN revisions.object_kind IS 'What it is a revision of.';
COMMENT ON COLUMN revisions.object_id IS 'Id of the object.';
COMMENT ON COLUMN revisions.revision IS 'From 1.';
COMMENT ON COLUMN revisions.spec IS 'All of the object as it was in this revision.';
COMMENT ON COLUMN revisions.author IS 'Who made it, in the words of the audit log.';
COMMENT ON COLUMN revisions.reason IS 'Why, in the author''s own words.';
COMMENT ON COLUMN revisions.created_at IS 'When.';

ALTER TABLE revisions ENABLE ROW LEVEL SECURITY;
ALTER TABLE revisions FORCE ROW LEVEL SECURITY;
CREATE POLICY system_all ON revisions TO trustfleet_system USING (true) WITH CHECK (true);
CREATE POLICY one_tenant ON revisions TO trustfleet_api USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY purge ON revisions TO CURRENT_USER USING (EXISTS (SELECT FROM tenants d
    WHERE d.tenant_id = revisions.tenant_id AND d.state = 'deleted' AND d.purge_at <= now()));
GRANT SELECT, INSERT, DELETE ON revisions TO trustfleet_api;

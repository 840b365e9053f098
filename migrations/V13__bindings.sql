-- Bindings: devices with certain labels get a trustpoint by themselves. Each device tells which state of its tenant's
-- bindings it was held against.

CREATE TABLE bindings (
    tenant_id uuid NOT NULL REFERENCES tenants,
    binding_id uuid NOT NULL,
    name text NOT NULL,
    selector jsonb NOT NULL,
    trustpoint text NOT NULL,
    entity_id uuid NOT NULL,
    ca_server_id uuid NOT NULL,
    policy_id uuid NOT NULL,
    enroll boolean NOT NULL,
    leaving text CHECK (leaving IN ('keep', 'delete')),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, binding_id),
    UNIQUE (tenant_id, name),
    FOREIGN KEY (tenant_id, entity_id) REFERENCES entities (tenant_id, entity_id),
    FOREIGN KEY (tenant_id, ca_server_id) REFERENCES ca_servers (tenant_id, ca_server_id),
    FOREIGN KEY (tenant_id, policy_id) REFERENCES policies (tenant_id, policy_id)
);
COMMENT ON TABLE bindings IS 'Which devices get which trustpoint by their labels.';
COMMENT ON COLUMN bindings.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN bindings.binding_id IS 'UUIDv7.';
COMMENT ON COLUMN bindings.name IS 'Name in URLs.';
COMMENT ON COLUMN bindings.selector IS 'Labels that a device must have, an object of strings.';
COMMENT ON COLUMN bindings.trustpoint IS 'Name of the trustpoint that it gets.';
COMMENT ON COLUMN bindings.entity_id IS 'Subject and alternative names.';
COMMENT ON COLUMN bindings.ca_server_id IS 'The CA.';
COMMENT ON COLUMN bindings.policy_id IS 'The settings.';
COMMENT ON COLUMN bindings.enroll IS 'Whether its trustpoints ask for their first certificate by themselves.';
COMMENT ON COLUMN bindings.leaving IS 'It is being removed: what becomes of its trustpoints; null: it is in force.';
COMMENT ON COLUMN bindings.created_at IS 'When it was made.';

ALTER TABLE tenants ADD COLUMN bindings_revision integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN tenants.bindings_revision IS 'Grows with every new binding.';
ALTER TABLE devices ADD COLUMN bindings_revision integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN devices.bindings_revision IS 'State of the tenant''s bindings that the device was held against; 0: to be held against them anew.';
CREATE INDEX devices_to_bind ON devices (tenant_id, bindings_revision);
ALTER TABLE trustpoints ADD COLUMN binding_id uuid;
COMMENT ON COLUMN trustpoints.binding_id IS 'The binding that it came by; null: it was made by hand. Follows from state.';
CREATE INDEX trustpoints_by_binding ON trustpoints (tenant_id, binding_id) WHERE binding_id IS NOT NULL;

ALTER TABLE bindings ENABLE ROW LEVEL SECURITY;
ALTER TABLE bindings FORCE ROW LEVEL SECURITY;
CREATE POLICY system_all ON bindings TO trustfleet_system USING (true) WITH CHECK (true);
CREATE POLICY one_tenant ON bindings TO trustfleet_api USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY purge ON bindings TO CURRENT_USER USING (EXISTS (SELECT FROM tenants d
    WHERE d.tenant_id = bindings.tenant_id AND d.state = 'deleted' AND d.purge_at <= now()));
GRANT SELECT, INSERT, UPDATE ON bindings TO trustfleet_api;
GRANT UPDATE (bindings_revision) ON tenants TO trustfleet_api;
GRANT SELECT, DELETE ON bindings TO trustfleet_system;

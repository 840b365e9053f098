-- Roots that follow trust anchors of CA servers, as agents heard from the CA: trusted by nobody before an operator takes them.

CREATE TABLE offered_roots (
    tenant_id uuid NOT NULL,
    ca_server_id uuid NOT NULL,
    sha256 text NOT NULL,
    certificate text NOT NULL,
    follows text NOT NULL,
    agent_id uuid NOT NULL,
    offered_at timestamptz NOT NULL,
    told_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, ca_server_id, sha256),
    FOREIGN KEY (tenant_id, ca_server_id) REFERENCES ca_servers ON DELETE CASCADE
);
COMMENT ON TABLE offered_roots IS 'Roots that follow trust anchors of CA servers, verified by these; anchors they become by a change of the CA server alone.';
COMMENT ON COLUMN offered_roots.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN offered_roots.ca_server_id IS 'The CA server.';
COMMENT ON COLUMN offered_roots.sha256 IS 'SHA-256 of the root, lower-case hex.';
COMMENT ON COLUMN offered_roots.certificate IS 'The root, PEM.';
COMMENT ON COLUMN offered_roots.follows IS 'SHA-256 of the trust anchor that certifies its key, lower-case hex.';
COMMENT ON COLUMN offered_roots.agent_id IS 'The agent that told of it first.';
COMMENT ON COLUMN offered_roots.offered_at IS 'When it first did.';
COMMENT ON COLUMN offered_roots.told_at IS 'When an agent last told of it, to the hour.';

ALTER TABLE offered_roots ENABLE ROW LEVEL SECURITY;
ALTER TABLE offered_roots FORCE ROW LEVEL SECURITY;
CREATE POLICY system_all ON offered_roots TO trustfleet_system USING (true) WITH CHECK (true);
CREATE POLICY one_tenant ON offered_roots TO trustfleet_api USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY purge ON offered_roots TO CURRENT_USER USING (EXISTS (SELECT FROM tenants d
    WHERE d.tenant_id = offered_roots.tenant_id AND d.state = 'deleted' AND d.purge_at <= now()));
GRANT SELECT, INSERT, UPDATE ON offered_roots TO trustfleet_api;
GRANT SELECT, INSERT, UPDATE ON offered_roots TO trustfleet_system;

-- Agents without a token: factory identities (IDevID) of registered CAs, and serial numbers that an operator expects.

CREATE TABLE factory_cas (
    tenant_id uuid NOT NULL REFERENCES tenants,
    factory_ca_id uuid NOT NULL,
    name text NOT NULL,
    anchors text[] NOT NULL,
    serial_from text NOT NULL CHECK (serial_from IN ('subject_serial_number', 'hardware_module_name')),
    expected_only boolean NOT NULL,
    labels jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, factory_ca_id),
    UNIQUE (tenant_id, name)
);
COMMENT ON TABLE factory_cas IS 'CAs whose factory identities (IDevID, IEEE 802.1AR) let an agent in.';
COMMENT ON COLUMN factory_cas.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN factory_cas.factory_ca_id IS 'UUIDv7.';
COMMENT ON COLUMN factory_cas.name IS 'Name in URLs.';
COMMENT ON COLUMN factory_cas.anchors IS 'Trust anchors, PEM.';
COMMENT ON COLUMN factory_cas.serial_from IS 'Where its certificates hold the serial number.';
COMMENT ON COLUMN factory_cas.expected_only IS 'Whether only serial numbers come in that an operator expects.';
COMMENT ON COLUMN factory_cas.labels IS 'Labels that its agents get, an object of strings.';
COMMENT ON COLUMN factory_cas.created_at IS 'When it was made.';

CREATE TABLE expected_agents (
    tenant_id uuid NOT NULL REFERENCES tenants,
    serial text NOT NULL,
    expected_id uuid NOT NULL,
    agent_name text,
    labels jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, serial),
    UNIQUE (tenant_id, expected_id)
);
COMMENT ON TABLE expected_agents IS 'Serial numbers whose agents may announce themselves; a row goes when its agent has joined.';
COMMENT ON COLUMN expected_agents.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN expected_agents.serial IS 'The serial number.';
COMMENT ON COLUMN expected_agents.expected_id IS 'UUIDv7, for the audit log.';
COMMENT ON COLUMN expected_agents.agent_name IS 'Name that the agent gets; null: the one that it asks for.';
COMMENT ON COLUMN expected_agents.labels IS 'Labels that the agent gets, an object of strings.';
COMMENT ON COLUMN expected_agents.created_at IS 'When it was made.';

CREATE TABLE agent_applicants (
    tenant_id uuid NOT NULL REFERENCES tenants,
    applicant_id uuid NOT NULL,
    serial text NOT NULL,
    name text NOT NULL,
    sign_key bytea NOT NULL,
    seal_key bytea NOT NULL,
    software text NOT NULL,
    address text,
    state text NOT NULL CHECK (state IN ('pending', 'approved', 'rejected')),
    first_seen_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, applicant_id),
    UNIQUE (tenant_id, sign_key),
    FOREIGN KEY (tenant_id, serial) REFERENCES expected_agents (tenant_id, serial) ON DELETE CASCADE
);
CREATE INDEX agent_applicants_by_serial ON agent_applicants (tenant_id, serial);
COMMENT ON TABLE agent_applicants IS 'Agents that announced an expected serial number and wait for an operator.';
COMMENT ON COLUMN agent_applicants.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN agent_applicants.applicant_id IS 'UUIDv7.';
COMMENT ON COLUMN agent_applicants.serial IS 'The serial number that it claims.';
COMMENT ON COLUMN agent_applicants.name IS 'Name that it will get.';
COMMENT ON COLUMN agent_applicants.sign_key IS 'Its Ed25519 public key.';
COMMENT ON COLUMN agent_applicants.seal_key IS 'Its X25519 public key.';
COMMENT ON COLUMN agent_applicants.software IS 'Version of its software, as it says.';
COMMENT ON COLUMN agent_applicants.address IS 'Where it last came from.';
COMMENT ON COLUMN agent_applicants.state IS 'What was decided.';
COMMENT ON COLUMN agent_applicants.first_seen_at IS 'When it first announced itself.';
COMMENT ON COLUMN agent_applicants.last_seen_at IS 'When it last did.';

ALTER TABLE agents
    ADD COLUMN serial text,
    ADD COLUMN joined_by text NOT NULL DEFAULT 'token' CHECK (joined_by IN ('token', 'factory', 'approval')),
    ADD CONSTRAINT agents_serial UNIQUE (tenant_id, serial);
COMMENT ON COLUMN agents.serial IS 'Serial number that its factory identity vouched for or an operator approved; null: it joined by a token.';
COMMENT ON COLUMN agents.joined_by IS 'How it first joined.';

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['factory_cas', 'expected_agents', 'agent_applicants']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY system_all ON %I TO trustfleet_system USING (true) WITH CHECK (true)', t);
        EXECUTE format('CREATE POLICY one_tenant ON %I TO trustfleet_api USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant())', t);
        EXECUTE format('CREATE POLICY purge ON %I TO CURRENT_USER USING (EXISTS (SELECT FROM tenants d
            WHERE d.tenant_id = %I.tenant_id AND d.state = ''deleted'' AND d.purge_at <= now()))', t, t);
    END LOOP;
END $$;
GRANT SELECT, INSERT, DELETE ON factory_cas, expected_agents TO trustfleet_api;
GRANT SELECT, UPDATE ON agent_applicants TO trustfleet_api;
GRANT SELECT ON factory_cas TO trustfleet_system;
GRANT SELECT, DELETE ON expected_agents TO trustfleet_system;
GRANT SELECT, INSERT, UPDATE, DELETE ON agent_applicants TO trustfleet_system;

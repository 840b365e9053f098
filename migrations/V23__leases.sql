-- Leases: by one an agent may renew a trustpoint by itself while the controller is out of reach. One row for each trustpoint
-- that has one, had one, or is to be looked at; jobs that agents began by one are told from others.

CREATE TABLE leases (
    tenant_id uuid NOT NULL REFERENCES tenants,
    trustpoint_id uuid NOT NULL,
    due_at timestamptz,
    lease_id uuid,
    agent_id uuid,
    device_id uuid,
    sequence bigint NOT NULL DEFAULT 0,
    content text,
    entity_id uuid,
    entity_revision integer,
    ca_server_id uuid,
    ca_server_revision integer,
    given_at timestamptz,
    expires_at timestamptz,
    ended_at timestamptz,
    end_reason text,
    offer_again boolean NOT NULL DEFAULT false,
    answered_sequence bigint NOT NULL DEFAULT 0,
    answered_at timestamptz,
    answer text CHECK (answer IN ('held', 'ended', 'refused')),
    answer_reason text,
    PRIMARY KEY (tenant_id, trustpoint_id),
    UNIQUE (tenant_id, lease_id)
);
CREATE INDEX leases_due ON leases (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX leases_by_agent ON leases (tenant_id, agent_id);
CREATE INDEX leases_by_entity ON leases (tenant_id, entity_id, entity_revision);
CREATE INDEX leases_by_ca_server ON leases (tenant_id, ca_server_id, ca_server_revision);
COMMENT ON TABLE leases IS 'Leave of agents to renew trustpoints by themselves; rows outlive their trustpoint, so that what was done by a lease can still be told of.';
COMMENT ON COLUMN leases.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN leases.trustpoint_id IS 'The trustpoint; no foreign key.';
COMMENT ON COLUMN leases.due_at IS 'When to look at it next: to give, to refresh or to end it; null: when something changes.';
COMMENT ON COLUMN leases.lease_id IS 'UUIDv7; another one when another agent gets it; null: none was given yet.';
COMMENT ON COLUMN leases.agent_id IS 'The agent that it was given to.';
COMMENT ON COLUMN leases.device_id IS 'Its device.';
COMMENT ON COLUMN leases.sequence IS 'Of the last message about it.';
COMMENT ON COLUMN leases.content IS 'SHA-256 of what the agent was given, hex: where it differs from what it would be given now, it is given anew.';
COMMENT ON COLUMN leases.entity_id IS 'The entity that it was made from.';
COMMENT ON COLUMN leases.entity_revision IS 'That entity''s revision.';
COMMENT ON COLUMN leases.ca_server_id IS 'The CA server that it was made from.';
COMMENT ON COLUMN leases.ca_server_revision IS 'That CA server''s revision.';
COMMENT ON COLUMN leases.given_at IS 'When it was last given.';
COMMENT ON COLUMN leases.expires_at IS 'Until when it holds.';
COMMENT ON COLUMN leases.ended_at IS 'When it was ended before that; null: it was not.';
COMMENT ON COLUMN leases.end_reason IS 'Why it was ended, in one word.';
COMMENT ON COLUMN leases.offer_again IS 'The last message may be lost: it is to be sent again.';
COMMENT ON COLUMN leases.answered_sequence IS 'Sequence of the message that the agent has answered last.';
COMMENT ON COLUMN leases.answered_at IS 'When it did.';
COMMENT ON COLUMN leases.answer IS 'What it said: held, ended or refused.';
COMMENT ON COLUMN leases.answer_reason IS 'Why it refused, in its own words.';

ALTER TABLE leases ENABLE ROW LEVEL SECURITY;
ALTER TABLE leases FORCE ROW LEVEL SECURITY;
CREATE POLICY system_all ON leases TO trustfleet_system USING (true) WITH CHECK (true);
CREATE POLICY one_tenant ON leases TO trustfleet_api USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY purge ON leases TO CURRENT_USER USING (EXISTS (SELECT FROM tenants d
    WHERE d.tenant_id = leases.tenant_id AND d.state = 'deleted' AND d.purge_at <= now()));
GRANT SELECT, UPDATE ON leases TO trustfleet_api;
GRANT SELECT, INSERT, UPDATE ON leases TO trustfleet_system;

ALTER TABLE agents ADD COLUMN takes_leases boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN agents.takes_leases IS 'Whether it said in its last hello that it takes leases.';

ALTER TABLE jobs ADD COLUMN lease_id uuid;
COMMENT ON COLUMN jobs.lease_id IS 'The lease by which its agent began it by itself; null: the controller asked for it.';
CREATE INDEX jobs_by_lease ON jobs (tenant_id, agent_id) WHERE lease_id IS NOT NULL AND finished_at IS NULL;

-- Those that are there already get theirs.
UPDATE trustpoints SET planned_revision = 0;

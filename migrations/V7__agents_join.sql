-- How agents come in and are put out: labels and re-joining by token, quarantine, who must lose its connections, and
-- what tells that one identity lives twice.

ALTER TABLE agents
    ADD COLUMN labels jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN quarantined_at timestamptz,
    ADD COLUMN quarantine_reason text,
    ADD COLUMN last_challenge bytea,
    ADD COLUMN instance_id uuid,
    ADD COLUMN instance_since timestamptz,
    ADD COLUMN former_instances uuid[] NOT NULL DEFAULT '{}',
    ADD COLUMN live_twice_at timestamptz,
    ADD CONSTRAINT agents_quarantine CHECK ((quarantined_at IS NULL) = (quarantine_reason IS NULL)),
    ADD CONSTRAINT agents_sign_key UNIQUE (tenant_id, sign_key);
COMMENT ON COLUMN agents.labels IS 'Labels from the token that it joined with, an object of strings.';
COMMENT ON COLUMN agents.quarantined_at IS 'Since when it is in quarantine; null: it is not.';
COMMENT ON COLUMN agents.quarantine_reason IS 'Why it is, in the words of who decided it.';
COMMENT ON COLUMN agents.last_challenge IS 'The newest challenge that opened a session: that one and older ones open no other.';
COMMENT ON COLUMN agents.instance_id IS 'The process of this agent that was last heard of; each start makes a new one.';
COMMENT ON COLUMN agents.instance_since IS 'When that process took over.';
COMMENT ON COLUMN agents.former_instances IS 'Processes heard of before, newest first, at most eight: one of them speaking again means two at once.';
COMMENT ON COLUMN agents.live_twice_at IS 'When two processes with its keys were last found alive at once.';

ALTER TABLE join_tokens
    ADD COLUMN labels jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN rejoin_agent_id uuid,
    ADD CONSTRAINT join_tokens_rejoin FOREIGN KEY (tenant_id, rejoin_agent_id) REFERENCES agents (tenant_id, agent_id);
COMMENT ON COLUMN join_tokens.labels IS 'Labels that the agent gets, an object of strings.';
COMMENT ON COLUMN join_tokens.rejoin_agent_id IS 'The agent that joins again with new keys; null: a new one joins.';

CREATE TABLE broker_cut_offs (
    tenant_id uuid NOT NULL REFERENCES tenants,
    agent_id uuid NOT NULL,
    broker_user text NOT NULL,
    with_queue boolean NOT NULL,
    wanted_at timestamptz NOT NULL,
    until timestamptz NOT NULL,
    done_at timestamptz,
    PRIMARY KEY (tenant_id, agent_id, broker_user),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents (tenant_id, agent_id)
);
COMMENT ON TABLE broker_cut_offs IS 'Whose connections to the broker are to be closed: an agent in quarantine, or the keys of before an agent joined again.';
COMMENT ON COLUMN broker_cut_offs.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN broker_cut_offs.agent_id IS 'The agent.';
COMMENT ON COLUMN broker_cut_offs.broker_user IS 'Name of its connections: agent and key.';
COMMENT ON COLUMN broker_cut_offs.with_queue IS 'Whether its queue goes as well: there is nobody who may read it.';
COMMENT ON COLUMN broker_cut_offs.wanted_at IS 'When this was ordered.';
COMMENT ON COLUMN broker_cut_offs.until IS 'Connections are closed again and again until then: the end of the last token that may be around.';
COMMENT ON COLUMN broker_cut_offs.done_at IS 'When that was last done; null: not yet.';

ALTER TABLE broker_cut_offs ENABLE ROW LEVEL SECURITY;
ALTER TABLE broker_cut_offs FORCE ROW LEVEL SECURITY;
CREATE POLICY system_all ON broker_cut_offs TO trustfleet_system USING (true) WITH CHECK (true);
CREATE POLICY one_tenant ON broker_cut_offs TO trustfleet_api
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
GRANT SELECT, INSERT, UPDATE, DELETE ON broker_cut_offs TO trustfleet_api, trustfleet_system;
GRANT UPDATE (quarantined_at, quarantine_reason) ON agents TO trustfleet_api;
CREATE POLICY purge ON broker_cut_offs TO CURRENT_USER USING (EXISTS (SELECT FROM tenants d
    WHERE d.tenant_id = broker_cut_offs.tenant_id AND d.state = 'deleted' AND d.purge_at <= now()));

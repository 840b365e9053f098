-- Messages of agents that cannot be processed, for a platform administrator to look at, to retry or to drop.

CREATE TABLE dead_letters (
    tenant_id uuid NOT NULL,
    dead_letter_id uuid NOT NULL,
    agent_id uuid NOT NULL,
    routing_key text NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    body bytea NOT NULL,
    size bigint NOT NULL CHECK (size >= length(body)),
    sha256 bytea NOT NULL,
    times bigint NOT NULL DEFAULT 1 CHECK (times > 0),
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, dead_letter_id),
    UNIQUE (tenant_id, agent_id, sha256)
);
CREATE INDEX dead_letters_in_order ON dead_letters (dead_letter_id);
CREATE INDEX dead_letters_by_age ON dead_letters (last_at, dead_letter_id);
COMMENT ON TABLE dead_letters IS 'Messages of agents that cannot be processed. Reachable only through the system role: they are of nobody before they are understood.';
COMMENT ON COLUMN dead_letters.tenant_id IS 'Tenant of the agent that wrote it; the nil UUID: not known.';
COMMENT ON COLUMN dead_letters.dead_letter_id IS 'UUIDv7.';
COMMENT ON COLUMN dead_letters.agent_id IS 'Whose routing key it came by, for which the broker answers; the nil UUID: not known.';
COMMENT ON COLUMN dead_letters.routing_key IS 'The routing key, by which it goes back to its queue; empty: not known.';
COMMENT ON COLUMN dead_letters.reason IS 'Why, as in the metrics.';
COMMENT ON COLUMN dead_letters.detail IS 'What was found, in words.';
COMMENT ON COLUMN dead_letters.body IS 'The message; of a very long one the beginning.';
COMMENT ON COLUMN dead_letters.size IS 'Length of the whole message, bytes.';
COMMENT ON COLUMN dead_letters.sha256 IS 'SHA-256 of the whole message: one that comes again is the same letter.';
COMMENT ON COLUMN dead_letters.times IS 'How often it was laid aside.';
COMMENT ON COLUMN dead_letters.first_at IS 'When it was laid aside first.';
COMMENT ON COLUMN dead_letters.last_at IS 'When it was last.';

ALTER TABLE dead_letters ENABLE ROW LEVEL SECURITY;
ALTER TABLE dead_letters FORCE ROW LEVEL SECURITY;
CREATE POLICY system_all ON dead_letters TO trustfleet_system USING (true) WITH CHECK (true);
CREATE POLICY purge ON dead_letters TO CURRENT_USER USING (EXISTS (SELECT FROM tenants d
    WHERE d.tenant_id = dead_letters.tenant_id AND d.state = 'deleted' AND d.purge_at <= now()));
GRANT SELECT, INSERT, UPDATE, DELETE ON dead_letters TO trustfleet_system;

-- What a CA's server may be burdened with: by endpoint, whichever tenants and replicas use it.

CREATE TABLE ca_endpoints (
    endpoint text PRIMARY KEY,
    rate_per_s double precision CHECK (rate_per_s > 0),
    burst integer CHECK (burst > 0),
    concurrency integer CHECK (concurrency > 0),
    tokens double precision,
    tokens_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    failures integer NOT NULL DEFAULT 0,
    open_until timestamptz,
    probing boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE ca_endpoints IS 'CMP servers that jobs go to, of no tenant: budget, what is left of it, circuit breaker.';
COMMENT ON COLUMN ca_endpoints.endpoint IS 'host:port of the primary URL of CA servers.';
COMMENT ON COLUMN ca_endpoints.rate_per_s IS 'Exchanges that may begin in a second; null: as the configuration says.';
COMMENT ON COLUMN ca_endpoints.burst IS 'Exchanges that may begin at once after a pause; null: as the configuration says.';
COMMENT ON COLUMN ca_endpoints.concurrency IS 'Exchanges under way at a time; null: as the configuration says.';
COMMENT ON COLUMN ca_endpoints.tokens IS 'Exchanges that might have begun at tokens_at; null: a whole burst.';
COMMENT ON COLUMN ca_endpoints.tokens_at IS 'When that was counted, by the database''s clock.';
COMMENT ON COLUMN ca_endpoints.failures IS 'Exchanges in a row that brought no answer.';
COMMENT ON COLUMN ca_endpoints.probing IS 'One job tries whether the CA is back.';
COMMENT ON COLUMN ca_endpoints.open_until IS 'Until then nothing is sent there; afterwards one job tries. Null: the breaker is closed.';
GRANT SELECT, INSERT, UPDATE, DELETE ON ca_endpoints TO trustfleet_system;

ALTER TABLE jobs ADD COLUMN endpoint text, ADD COLUMN deadline timestamptz;
COMMENT ON COLUMN jobs.endpoint IS 'The CA endpoint that its exchange counts for; null: it has none.';
COMMENT ON COLUMN jobs.deadline IS 'When it is too late: the end of the certificate that it replaces. Null: never.';
CREATE INDEX jobs_at_ca ON jobs (endpoint, started_at) WHERE state = 'awaiting_ca';
CREATE INDEX jobs_on_their_way ON jobs (endpoint, published_at) WHERE state = 'awaiting_agent';

ALTER TABLE outbox ADD COLUMN endpoint text, ADD COLUMN deadline timestamptz;
COMMENT ON COLUMN outbox.endpoint IS 'The CA endpoint whose budget it waits for; null: it waits for none.';
COMMENT ON COLUMN outbox.deadline IS 'That of the job.';
CREATE INDEX outbox_free ON outbox (outbox_id) WHERE endpoint IS NULL;
CREATE INDEX outbox_by_endpoint ON outbox (endpoint, tenant_id, outbox_id) WHERE endpoint IS NOT NULL;
CREATE INDEX outbox_claimed ON outbox (endpoint) WHERE claimed_until IS NOT NULL;
CREATE INDEX outbox_urgent ON outbox (endpoint, tenant_id, deadline) WHERE deadline IS NOT NULL;

ALTER TABLE tenants ADD COLUMN ca_weight integer NOT NULL DEFAULT 1 CHECK (ca_weight BETWEEN 1 AND 100);
COMMENT ON COLUMN tenants.ca_weight IS 'Its share of a CA''s budget while several tenants wait for it.';

-- Exchanges with secondary servers count for these, and what agents do by themselves is counted afterwards.

ALTER TABLE jobs ADD COLUMN primary_endpoint text, ADD COLUMN secondary_endpoint text;
COMMENT ON COLUMN jobs.endpoint IS 'The CA endpoint that its exchange counts for: the primary one, or the secondary one while or because the other does not answer; null: it has none.';
COMMENT ON COLUMN jobs.primary_endpoint IS 'The endpoint of its CA server''s primary URL; null: it has none, or was made before there was this column.';
COMMENT ON COLUMN jobs.secondary_endpoint IS 'The endpoint of its CA server''s secondary URL, where that is another one; null: there is none.';

ALTER TABLE ca_endpoints
    ADD COLUMN failover_until timestamptz,
    ADD COLUMN failovers bigint NOT NULL DEFAULT 0,
    ADD COLUMN exempt bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN ca_endpoints.endpoint IS 'host:port of the primary or the secondary URL of CA servers.';
COMMENT ON COLUMN ca_endpoints.tokens IS 'Exchanges that might have begun at tokens_at; null: a whole burst; below zero: what began without being asked for.';
COMMENT ON COLUMN ca_endpoints.failover_until IS 'Until then jobs that have a secondary server are admitted by that one''s budget; null: nothing has gone there.';
COMMENT ON COLUMN ca_endpoints.failovers IS 'Exchanges that went to a secondary server instead, since the row was made.';
COMMENT ON COLUMN ca_endpoints.exempt IS 'Exchanges that agents began by themselves, since the row was made: exempt from the budget, and counted.';

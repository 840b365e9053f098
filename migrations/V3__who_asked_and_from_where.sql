-- What every row of the audit log carries besides actor and action: role, source, request, trace, before and after, outcome.

ALTER TABLE audit
    ADD COLUMN role text NOT NULL DEFAULT '',
    ADD COLUMN source inet,
    ADD COLUMN request_id uuid,
    ADD COLUMN trace_id text,
    ADD COLUMN before jsonb,
    ADD COLUMN after jsonb,
    ADD COLUMN outcome text NOT NULL DEFAULT 'done' CHECK (outcome IN ('done', 'refused'));
-- Only rows from before this migration may leave them out.
ALTER TABLE audit ALTER COLUMN role DROP DEFAULT, ALTER COLUMN outcome DROP DEFAULT;
COMMENT ON COLUMN audit.tenant_id IS 'Tenant it belongs to; the nil UUID is the log of the installation itself.';
COMMENT ON COLUMN audit.role IS 'What the actor might do when it asked: a role of the API, agent or controller.';
COMMENT ON COLUMN audit.source IS 'Address of the other end of the connection; null for what came over the broker or from the controller itself.';
COMMENT ON COLUMN audit.request_id IS 'X-Request-Id of the answer; for a report of an agent the report''s id.';
COMMENT ON COLUMN audit.trace_id IS 'Trace of the request, 32 hex digits.';
COMMENT ON COLUMN audit.before IS 'The changed fields as they were, or the whole object that is gone; without secrets, certificates by fingerprint.';
COMMENT ON COLUMN audit.after IS 'The changed fields as they are, or the whole object that was made; without secrets, certificates by fingerprint.';
COMMENT ON COLUMN audit.outcome IS 'done, or refused: then nothing was changed.';

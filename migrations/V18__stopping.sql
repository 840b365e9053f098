-- Stopping a job by hand (S37): when it was ordered, and whether its agent has still to be told or to answer.

ALTER TABLE jobs
    ADD COLUMN stop_requested_at timestamptz,
    ADD COLUMN stop_pending boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN jobs.stop_requested_at IS 'When an operator wanted it to end; null: never.';
COMMENT ON COLUMN jobs.stop_pending IS 'Its agent is to be told to stop it, until it reports an end; also of a job that has ended here.';
CREATE INDEX jobs_to_stop ON jobs (tenant_id, agent_id) WHERE stop_pending;

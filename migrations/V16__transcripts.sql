-- The flight recorder: what went to and fro in each exchange, kept for a time that the tenant sets.

ALTER TABLE jobs ADD COLUMN transcript jsonb;
COMMENT ON COLUMN jobs.transcript IS 'What went to and fro in its exchange, decoded and without secrets, tagged with its version; null: nothing yet, the agent does not tell, or its time is over.';
CREATE INDEX jobs_with_transcript ON jobs (tenant_id, finished_at) WHERE transcript IS NOT NULL;

ALTER TABLE tenants ADD COLUMN transcript_days integer NOT NULL DEFAULT 90 CHECK (transcript_days BETWEEN 1 AND 3653);
COMMENT ON COLUMN tenants.transcript_days IS 'Days that transcripts are kept after the end of their job.';

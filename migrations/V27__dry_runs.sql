-- Dry runs: a job tries on the device everything that an enrolment needs, and says nothing to the CA.

ALTER TABLE jobs DROP CONSTRAINT jobs_kind_check;
ALTER TABLE jobs ADD CONSTRAINT jobs_kind_check
    CHECK (kind IN ('ir', 'cr', 'kur', 'activate', 'revoke', 'dry_run'));
ALTER TABLE jobs ADD COLUMN dry_run jsonb;
COMMENT ON COLUMN jobs.dry_run IS 'What a dry run found: duration and checks; null: it is none, or has not ended.';

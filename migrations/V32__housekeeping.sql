-- What is over is kept for so long as its tenant wants, and then removed in the background.

ALTER TABLE tenants
    ADD COLUMN job_days integer NOT NULL DEFAULT 730 CHECK (job_days BETWEEN 7 AND 3653),
    ADD COLUMN certificate_days integer NOT NULL DEFAULT 730 CHECK (certificate_days BETWEEN 7 AND 3653),
    ADD COLUMN join_days integer NOT NULL DEFAULT 90 CHECK (join_days BETWEEN 7 AND 3653),
    ADD COLUMN audit_days integer NOT NULL DEFAULT 0 CHECK (audit_days = 0 OR audit_days BETWEEN 2 AND 3653);
COMMENT ON COLUMN tenants.job_days IS 'Days that jobs are kept after their end; one that brought a certificate is kept as long as that.';
COMMENT ON COLUMN tenants.certificate_days IS 'Days that certificates are kept after their end, when they are of no use on a trustpoint any more.';
COMMENT ON COLUMN tenants.join_days IS 'Days that join tokens, rejected applicants and ended leases are kept when they are over.';
COMMENT ON COLUMN tenants.audit_days IS 'Days that rows of the audit log are kept, where that is shorter than what the configuration says; 0: as it says.';

CREATE INDEX jobs_ended ON jobs (tenant_id, finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX leases_over ON leases (tenant_id, expires_at) WHERE due_at IS NULL;

GRANT DELETE ON jobs, certificates, leases, join_tokens TO trustfleet_system;

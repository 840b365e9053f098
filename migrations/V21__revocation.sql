-- Revocation: what was asked of the CA for a certificate, and when the CA is to be asked for it (again).

ALTER TABLE jobs DROP CONSTRAINT jobs_kind_check;
ALTER TABLE jobs ADD CONSTRAINT jobs_kind_check CHECK (kind IN ('ir', 'cr', 'kur', 'activate', 'revoke'));
ALTER TABLE jobs ADD COLUMN certificate_id uuid;
COMMENT ON COLUMN jobs.certificate_id IS 'The certificate that it asks to revoke; null: it asks for something else.';

ALTER TABLE certificates
    ADD COLUMN revocation jsonb,
    ADD COLUMN revocation_due_at timestamptz,
    ADD COLUMN given_up boolean NOT NULL
        GENERATED ALWAYS AS (revocation IS NOT NULL AND revocation ->> 'state' <> 'failed') STORED;
COMMENT ON COLUMN certificates.revocation IS 'State (wanted, requested, revoked, failed), reason, who wanted it and what came of it; null: nobody wanted it.';
COMMENT ON COLUMN certificates.revocation_due_at IS 'When a wanted revocation is to be asked for; null: not by itself.';
COMMENT ON COLUMN certificates.given_up IS 'It is revoked, or about to be.';
CREATE INDEX certificates_to_revoke ON certificates (revocation_due_at) WHERE revocation_due_at IS NOT NULL;
-- What is revoked is not counted as in use any more: nobody waits for its end.
DROP INDEX certificates_in_use;
CREATE INDEX certificates_in_use ON certificates (tenant_id, trustpoint_id) INCLUDE (not_before, not_after)
    WHERE slot = 'active' AND NOT given_up;
COMMENT ON INDEX certificates_in_use IS 'Lifetimes of the certificates in use, read from the index alone.';
CREATE INDEX certificates_by_revocation ON certificates (tenant_id, (revocation ->> 'state'), not_after)
    WHERE revocation IS NOT NULL;
COMMENT ON INDEX certificates_by_revocation IS 'Revocations by state, counted from the few rows that have one.';
GRANT UPDATE (revocation, revocation_due_at) ON certificates TO trustfleet_api;

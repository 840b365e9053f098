-- One key pair, one trustpoint (S4): who else has a public key is asked for with each exchange that begins.

CREATE INDEX certificates_by_key ON certificates (tenant_id, public_key_sha256) WHERE slot IN ('active', 'staged');
CREATE INDEX jobs_open_by_key ON jobs (tenant_id, public_key_sha256) WHERE finished_at IS NULL;

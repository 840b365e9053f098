-- A device is deleted with what is its own; with its certificates to be revoked it leaves first, and goes when they are.

ALTER TABLE devices ADD COLUMN leaving_at timestamptz, ADD COLUMN leaving_by text;
COMMENT ON COLUMN devices.leaving_at IS 'Since when it leaves: its certificates are being revoked, and then it is deleted; null: it stays.';
COMMENT ON COLUMN devices.leaving_by IS 'Who wanted it to leave, in the words of the audit log.';
CREATE INDEX devices_leaving ON devices (leaving_at) WHERE leaving_at IS NOT NULL;
CREATE INDEX certificates_by_device ON certificates (tenant_id, device_id, certificate_id);

GRANT DELETE ON agents, leases TO trustfleet_api;

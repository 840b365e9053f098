-- Searching a large fleet: by labels, state, time left, CA, issuer and key. Conditions must be such that row level security
-- lets an index answer them: equality and order of plain columns, not what reads inside of JSON.

CREATE TABLE device_labels (
    tenant_id uuid NOT NULL REFERENCES tenants,
    device_id uuid NOT NULL,
    label text NOT NULL,
    name text NOT NULL,
    PRIMARY KEY (tenant_id, device_id, label),
    FOREIGN KEY (tenant_id, device_id) REFERENCES devices (tenant_id, device_id) ON DELETE CASCADE
);
CREATE INDEX device_labels_by_label ON device_labels (tenant_id, label, name, device_id);
ALTER TABLE device_labels ALTER COLUMN label SET STATISTICS 1000;
COMMENT ON TABLE device_labels IS 'Labels of devices, one row each: a copy of devices.labels, kept by a trigger, for searching.';
COMMENT ON COLUMN device_labels.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN device_labels.device_id IS 'The device.';
COMMENT ON COLUMN device_labels.label IS 'KEY=VALUE; neither can hold an equals sign.';
COMMENT ON COLUMN device_labels.name IS 'The device''s name, which never changes.';

ALTER TABLE device_labels ENABLE ROW LEVEL SECURITY;
ALTER TABLE device_labels FORCE ROW LEVEL SECURITY;
CREATE POLICY system_all ON device_labels TO trustfleet_system USING (true) WITH CHECK (true);
CREATE POLICY one_tenant ON device_labels TO trustfleet_api USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY purge ON device_labels TO CURRENT_USER USING (EXISTS (SELECT FROM tenants d
    WHERE d.tenant_id = device_labels.tenant_id AND d.state = 'deleted' AND d.purge_at <= now()));
GRANT SELECT, INSERT, DELETE ON device_labels TO trustfleet_api, trustfleet_system;

CREATE FUNCTION device_labels_follow() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        DELETE FROM device_labels WHERE tenant_id = OLD.tenant_id AND device_id = OLD.device_id;
    END IF;
    INSERT INTO device_labels (tenant_id, device_id, label, name)
    SELECT NEW.tenant_id, NEW.device_id, l.key || '=' || l.value, NEW.name FROM jsonb_each_text(NEW.labels) l;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION device_labels_follow() IS 'Keeps device_labels as devices.labels is.';
CREATE TRIGGER device_labels_made AFTER INSERT ON devices FOR EACH ROW WHEN (NEW.labels <> '{}')
    EXECUTE FUNCTION device_labels_follow();
CREATE TRIGGER device_labels_changed AFTER UPDATE OF labels ON devices FOR EACH ROW
    WHEN (OLD.labels IS DISTINCT FROM NEW.labels) EXECUTE FUNCTION device_labels_follow();

DROP INDEX devices_by_agent;
CREATE INDEX devices_by_agent ON devices (tenant_id, agent_id, name);
CREATE INDEX trustpoints_by_status ON trustpoints (tenant_id, status, trustpoint_id);
CREATE INDEX trustpoints_by_ca_server ON trustpoints (tenant_id, ca_server_id, trustpoint_id);
CREATE INDEX trustpoints_by_policy ON trustpoints (tenant_id, policy_id, trustpoint_id);

-- A comparison of hashes of texts that may be long; no secret hangs on them.
ALTER TABLE certificates
    ADD COLUMN key_type text,
    ADD COLUMN issuer_key text NOT NULL GENERATED ALWAYS AS (md5(issuer)) STORED,
    ADD COLUMN revocation_state text GENERATED ALWAYS AS (revocation ->> 'state') STORED;
COMMENT ON COLUMN certificates.key_type IS 'Kind and size of its key, as policies spell them; null: not looked at yet, which the housekeeping does.';
COMMENT ON COLUMN certificates.issuer_key IS 'Short for issuer, in indexes.';
COMMENT ON COLUMN certificates.revocation_state IS 'How far its revocation is, as revocation tells; null: none is wanted.';
CREATE INDEX certificates_by_slot_and_end ON certificates (tenant_id, slot, not_after, certificate_id);
CREATE INDEX certificates_by_issuer ON certificates (tenant_id, issuer_key, not_after, certificate_id);
CREATE INDEX certificates_by_key_type ON certificates (tenant_id, key_type, not_after, certificate_id);
CREATE INDEX certificates_by_revocation_state ON certificates (tenant_id, revocation_state, not_after, certificate_id)
    WHERE revocation_state IS NOT NULL;
CREATE INDEX certificates_without_key_type ON certificates (certificate_id) WHERE key_type IS NULL;

-- A CA server, a policy or an issuer belongs to one tenant: without this the planner takes them for independent of it.
CREATE STATISTICS trustpoints_of_tenant (dependencies) ON tenant_id, ca_server_id, policy_id FROM trustpoints;
CREATE STATISTICS certificates_of_tenant (dependencies) ON tenant_id, issuer_key FROM certificates;

-- What is there already: as the owner, whom row level security shows nothing, one policy for the time of this migration.
CREATE POLICY fill_in ON devices TO CURRENT_USER USING (true);
CREATE POLICY fill_in ON device_labels TO CURRENT_USER USING (true) WITH CHECK (true);
INSERT INTO device_labels (tenant_id, device_id, label, name)
SELECT d.tenant_id, d.device_id, l.key || '=' || l.value, d.name FROM devices d CROSS JOIN LATERAL jsonb_each_text(d.labels) l;
DROP POLICY fill_in ON devices;
DROP POLICY fill_in ON device_labels;

-- Roll-over of trust anchors: the next ones reach the services that rely on them before a CA server's issuer is switched.

CREATE TABLE rollovers (
    tenant_id uuid NOT NULL,
    rollover_id uuid NOT NULL,
    ca_server_id uuid NOT NULL,
    phase text NOT NULL CHECK (phase IN ('distributing', 'switched', 'finished', 'cancelled')),
    spec jsonb NOT NULL,
    former_anchors jsonb NOT NULL,
    started_by text NOT NULL,
    started_at timestamptz NOT NULL,
    switched_by text,
    switched_at timestamptz,
    forced_reason text,
    ended_by text,
    ended_at timestamptz,
    due_at timestamptz,
    PRIMARY KEY (tenant_id, rollover_id),
    FOREIGN KEY (tenant_id, ca_server_id) REFERENCES ca_servers ON DELETE CASCADE
);
CREATE UNIQUE INDEX rollovers_open ON rollovers (tenant_id, ca_server_id) WHERE phase IN ('distributing', 'switched');
CREATE INDEX rollovers_by_ca_server ON rollovers (tenant_id, ca_server_id, rollover_id);
CREATE INDEX rollovers_due ON rollovers (due_at) WHERE due_at IS NOT NULL;
COMMENT ON TABLE rollovers IS 'Roll-overs of the trust anchors of CA servers; at most one of each is open. What each trustpoint was told, and what it said, is in its state.';
COMMENT ON COLUMN rollovers.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN rollovers.rollover_id IS 'UUIDv7.';
COMMENT ON COLUMN rollovers.ca_server_id IS 'The CA server.';
COMMENT ON COLUMN rollovers.phase IS 'Where it stands.';
COMMENT ON COLUMN rollovers.spec IS 'The next anchors, the share that must have them, what counts, and what the switch changes.';
COMMENT ON COLUMN rollovers.former_anchors IS 'The anchors of the CA server when it began, PEM.';
COMMENT ON COLUMN rollovers.started_by IS 'Who began it.';
COMMENT ON COLUMN rollovers.started_at IS 'When.';
COMMENT ON COLUMN rollovers.switched_by IS 'Who switched the issuer.';
COMMENT ON COLUMN rollovers.switched_at IS 'When; null: it was not switched.';
COMMENT ON COLUMN rollovers.forced_reason IS 'Why it was switched below the required share; null: it was not.';
COMMENT ON COLUMN rollovers.ended_by IS 'Who finished or cancelled it.';
COMMENT ON COLUMN rollovers.ended_at IS 'When; null: it is open.';
COMMENT ON COLUMN rollovers.due_at IS 'When any replica looks next for trustpoints that are to be told; null: none is.';

ALTER TABLE rollovers ENABLE ROW LEVEL SECURITY;
ALTER TABLE rollovers FORCE ROW LEVEL SECURITY;
CREATE POLICY system_all ON rollovers TO trustfleet_system USING (true) WITH CHECK (true);
CREATE POLICY one_tenant ON rollovers TO trustfleet_api USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY purge ON rollovers TO CURRENT_USER USING (EXISTS (SELECT FROM tenants d
    WHERE d.tenant_id = rollovers.tenant_id AND d.state = 'deleted' AND d.purge_at <= now()));
GRANT SELECT, INSERT, UPDATE, DELETE ON rollovers TO trustfleet_api;
GRANT SELECT, UPDATE ON rollovers TO trustfleet_system;

ALTER TABLE jobs DROP CONSTRAINT jobs_kind_check;
ALTER TABLE jobs ADD CONSTRAINT jobs_kind_check
    CHECK (kind IN ('ir', 'cr', 'kur', 'activate', 'revoke', 'dry_run', 'anchors'));

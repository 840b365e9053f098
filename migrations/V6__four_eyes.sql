-- Changes that wait for another administrator.

CREATE TABLE changes (
    tenant_id uuid NOT NULL REFERENCES tenants,
    change_id uuid NOT NULL,
    operation text NOT NULL,
    object_kind text NOT NULL,
    object_name text NOT NULL,
    object_revision integer,
    proposal jsonb,
    state text NOT NULL CHECK (state IN ('pending', 'approved', 'rejected')),
    proposed_by text NOT NULL,
    proposer text NOT NULL,
    proposed_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    decided_by text,
    decided_at timestamptz,
    reason text,
    PRIMARY KEY (tenant_id, change_id),
    CHECK ((state = 'pending') = (decided_at IS NULL))
);
COMMENT ON TABLE changes IS 'Changes that take effect when an administrator other than their proposer approves them.';
COMMENT ON COLUMN changes.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN changes.change_id IS 'UUIDv7.';
COMMENT ON COLUMN changes.operation IS 'The operation of the API that was asked for.';
COMMENT ON COLUMN changes.object_kind IS 'Kind of the object: ca_server and so on.';
COMMENT ON COLUMN changes.object_name IS 'Name of the object.';
COMMENT ON COLUMN changes.object_revision IS 'Revision of the object that the proposer saw; only that one is changed. Null: it is to be made.';
COMMENT ON COLUMN changes.proposal IS 'What the object is to be, checked and complete; null: gone.';
COMMENT ON COLUMN changes.state IS 'What was decided.';
COMMENT ON COLUMN changes.proposed_by IS 'Who proposed it, in the words of the audit log.';
COMMENT ON COLUMN changes.proposer IS 'Whom that credential acts for (api_tokens.person): who must not approve.';
COMMENT ON COLUMN changes.proposed_at IS 'When it was proposed.';
COMMENT ON COLUMN changes.expires_at IS 'When it can be approved no more.';
COMMENT ON COLUMN changes.decided_by IS 'Who decided, in the words of the audit log.';
COMMENT ON COLUMN changes.decided_at IS 'When it was decided.';
COMMENT ON COLUMN changes.reason IS 'Why it was rejected.';

ALTER TABLE changes ENABLE ROW LEVEL SECURITY;
ALTER TABLE changes FORCE ROW LEVEL SECURITY;
CREATE POLICY system_all ON changes TO trustfleet_system USING (true) WITH CHECK (true);
CREATE POLICY one_tenant ON changes TO trustfleet_api USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY purge ON changes TO CURRENT_USER USING (EXISTS (SELECT FROM tenants d
    WHERE d.tenant_id = changes.tenant_id AND d.state = 'deleted' AND d.purge_at <= now()));
GRANT SELECT, INSERT, UPDATE ON changes TO trustfleet_api;

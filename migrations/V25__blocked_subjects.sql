-- People of identity providers whose tokens open nothing any more, although they have not ended.

CREATE TABLE blocked_subjects (
    tenant_id uuid NOT NULL,
    block_id uuid NOT NULL,
    issuer text NOT NULL,
    subject text NOT NULL,
    reason text NOT NULL,
    blocked_by text NOT NULL,
    blocked_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, block_id),
    UNIQUE (tenant_id, issuer, subject)
);
CREATE INDEX blocked_subjects_by_subject ON blocked_subjects (issuer, subject);
COMMENT ON TABLE blocked_subjects IS 'Subjects of identity providers that are let in no more. Reachable only through the system role: who presents a token has no tenant yet.';
COMMENT ON COLUMN blocked_subjects.tenant_id IS 'Where they are blocked; the nil UUID: everywhere.';
COMMENT ON COLUMN blocked_subjects.block_id IS 'UUIDv7.';
COMMENT ON COLUMN blocked_subjects.issuer IS 'The provider, as iss in its tokens.';
COMMENT ON COLUMN blocked_subjects.subject IS 'Whom it names, as sub in its tokens.';
COMMENT ON COLUMN blocked_subjects.reason IS 'Why, in the words of who decided it.';
COMMENT ON COLUMN blocked_subjects.blocked_by IS 'Who decided it, in the words of the audit log.';
COMMENT ON COLUMN blocked_subjects.blocked_at IS 'When.';

ALTER TABLE blocked_subjects ENABLE ROW LEVEL SECURITY;
ALTER TABLE blocked_subjects FORCE ROW LEVEL SECURITY;
CREATE POLICY system_all ON blocked_subjects TO trustfleet_system USING (true) WITH CHECK (true);
CREATE POLICY purge ON blocked_subjects TO CURRENT_USER USING (EXISTS (SELECT FROM tenants d
    WHERE d.tenant_id = blocked_subjects.tenant_id AND d.state = 'deleted' AND d.purge_at <= now()));
GRANT SELECT, INSERT, DELETE ON blocked_subjects TO trustfleet_system;

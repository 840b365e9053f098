-- Changes of many trustpoints in waves, and windows in which nothing is to be changed.

CREATE TABLE campaigns (
    tenant_id uuid NOT NULL REFERENCES tenants (tenant_id) ON DELETE CASCADE,
    campaign_id uuid NOT NULL,
    name text NOT NULL,
    spec jsonb NOT NULL,
    state text NOT NULL CHECK (state IN ('preparing', 'running', 'paused', 'stopped', 'completed', 'cancelled',
        'rolling_back', 'rolled_back')),
    state_before text CHECK (state_before IN ('preparing', 'running', 'rolling_back')),
    reason text,
    wave integer NOT NULL DEFAULT 0 CHECK (wave >= 0),
    wave_ends jsonb NOT NULL DEFAULT '[]',
    reached_at timestamptz,
    forgiven integer NOT NULL DEFAULT 0 CHECK (forgiven >= 0),
    waived integer NOT NULL DEFAULT 0 CHECK (waived >= 0),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    finished_at timestamptz,
    PRIMARY KEY (tenant_id, campaign_id),
    UNIQUE (tenant_id, name)
);
CREATE INDEX campaigns_at_work ON campaigns (state) WHERE state IN ('preparing', 'running', 'rolling_back');
COMMENT ON TABLE campaigns IS 'Changes of many trustpoints, in waves.';
COMMENT ON COLUMN campaigns.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN campaigns.campaign_id IS 'UUIDv7.';
COMMENT ON COLUMN campaigns.name IS 'Name in URLs.';
COMMENT ON COLUMN campaigns.spec IS 'Which trustpoints, what is done to them, in which waves, and what stops it.';
COMMENT ON COLUMN campaigns.state IS 'How far it is; stopped: by failures, an operator decides.';
COMMENT ON COLUMN campaigns.state_before IS 'What it goes on with when it is resumed; null: it is neither paused nor stopped.';
COMMENT ON COLUMN campaigns.reason IS 'Why it is paused, stopped or cancelled, as a sentence.';
COMMENT ON COLUMN campaigns.wave IS 'The wave that is at work, from 0.';
COMMENT ON COLUMN campaigns.wave_ends IS 'How many members there are up to the end of each wave, an array of numbers; empty while it is prepared.';
COMMENT ON COLUMN campaigns.reached_at IS 'When the wave at work came to its threshold; null: it has not.';
COMMENT ON COLUMN campaigns.forgiven IS 'Failures of the wave at work that an operator has seen and that count no more.';
COMMENT ON COLUMN campaigns.waived IS 'Members of the wave at work that were not seen in service, and are not asked to be any more.';
COMMENT ON COLUMN campaigns.created_by IS 'Who made it.';
COMMENT ON COLUMN campaigns.created_at IS 'When it was made.';
COMMENT ON COLUMN campaigns.updated_at IS 'When it was last changed.';
COMMENT ON COLUMN campaigns.finished_at IS 'When it ended.';

CREATE TABLE campaign_members (
    tenant_id uuid NOT NULL,
    campaign_id uuid NOT NULL,
    trustpoint_id uuid NOT NULL,
    device_id uuid NOT NULL,
    wave integer NOT NULL CHECK (wave >= 0),
    state text NOT NULL CHECK (state IN ('pending', 'asking', 'in_flight', 'activating', 'verified', 'unverifiable', 'failed',
        'unreachable', 'skipped', 'cancelled', 'to_undo', 'undoing', 'undone', 'undo_failed')),
    code text,
    reason text,
    job_id uuid,
    before jsonb,
    claimed_until timestamptz,
    asked_at timestamptz,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, campaign_id, trustpoint_id),
    FOREIGN KEY (tenant_id, campaign_id) REFERENCES campaigns (tenant_id, campaign_id) ON DELETE CASCADE
);
CREATE INDEX campaign_members_by_state ON campaign_members (tenant_id, campaign_id, wave, state);
CREATE INDEX campaign_members_at_work ON campaign_members (tenant_id, campaign_id, claimed_until)
    WHERE state IN ('asking', 'in_flight', 'activating', 'undoing');
CREATE INDEX campaign_members_by_job ON campaign_members (tenant_id, job_id) WHERE job_id IS NOT NULL;
COMMENT ON TABLE campaign_members IS 'The trustpoints of a campaign, fixed when it begins, and what became of them.';
COMMENT ON COLUMN campaign_members.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN campaign_members.campaign_id IS 'The campaign.';
COMMENT ON COLUMN campaign_members.trustpoint_id IS 'The trustpoint; it may be gone by now.';
COMMENT ON COLUMN campaign_members.device_id IS 'Its device.';
COMMENT ON COLUMN campaign_members.wave IS 'Its wave, from 0.';
COMMENT ON COLUMN campaign_members.state IS 'How far it is.';
COMMENT ON COLUMN campaign_members.code IS 'Why it is so, in one word; null: there is nothing to say.';
COMMENT ON COLUMN campaign_members.reason IS 'The same as a sentence.';
COMMENT ON COLUMN campaign_members.job_id IS 'The job that does it; chosen before it is asked for, so that it is made once.';
COMMENT ON COLUMN campaign_members.before IS 'CA server, policy and certificate before, for a roll-back.';
COMMENT ON COLUMN campaign_members.claimed_until IS 'Until then a replica asks for it; null: nobody does.';
COMMENT ON COLUMN campaign_members.asked_at IS 'When it was first asked for.';
COMMENT ON COLUMN campaign_members.updated_at IS 'When it was last changed.';

CREATE TABLE freezes (
    tenant_id uuid NOT NULL REFERENCES tenants (tenant_id) ON DELETE CASCADE,
    freeze_id uuid NOT NULL,
    name text NOT NULL,
    spec jsonb NOT NULL,
    labels jsonb NOT NULL,
    active_until timestamptz,
    next_from timestamptz,
    looked_at timestamptz,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, freeze_id),
    UNIQUE (tenant_id, name)
);
COMMENT ON TABLE freezes IS 'Windows in which devices are not changed, but for what is urgent.';
COMMENT ON COLUMN freezes.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN freezes.freeze_id IS 'UUIDv7.';
COMMENT ON COLUMN freezes.name IS 'Name in URLs.';
COMMENT ON COLUMN freezes.spec IS 'Begin (cron), duration and time zone.';
COMMENT ON COLUMN freezes.labels IS 'Labels of the devices that it holds, an object of strings; empty: all devices.';
COMMENT ON COLUMN freezes.active_until IS 'End of the present window; null: there is none. Kept by any replica.';
COMMENT ON COLUMN freezes.next_from IS 'Begin of the next window; null: there is none.';
COMMENT ON COLUMN freezes.looked_at IS 'When that was found out.';
COMMENT ON COLUMN freezes.created_at IS 'When it was made.';

ALTER TABLE outbox ADD COLUMN held_until timestamptz;
COMMENT ON COLUMN outbox.held_until IS 'End of the freeze window that holds it; null: none does.';
CREATE INDEX outbox_held ON outbox (held_until) WHERE held_until IS NOT NULL;
DROP INDEX outbox_free;
CREATE INDEX outbox_free ON outbox (outbox_id) WHERE endpoint IS NULL AND held_until IS NULL;
DROP INDEX outbox_by_endpoint;
CREATE INDEX outbox_by_endpoint ON outbox (endpoint, tenant_id, outbox_id) WHERE endpoint IS NOT NULL AND held_until IS NULL;

ALTER TABLE campaigns ENABLE ROW LEVEL SECURITY;
ALTER TABLE campaigns FORCE ROW LEVEL SECURITY;
CREATE POLICY system_all ON campaigns TO trustfleet_system USING (true) WITH CHECK (true);
CREATE POLICY one_tenant ON campaigns TO trustfleet_api USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY purge ON campaigns TO CURRENT_USER USING (EXISTS (SELECT FROM tenants d
    WHERE d.tenant_id = campaigns.tenant_id AND d.state = 'deleted' AND d.purge_at <= now()));
GRANT SELECT, INSERT, UPDATE, DELETE ON campaigns TO trustfleet_api;
GRANT SELECT, UPDATE, DELETE ON campaigns TO trustfleet_system;

ALTER TABLE campaign_members ENABLE ROW LEVEL SECURITY;
ALTER TABLE campaign_members FORCE ROW LEVEL SECURITY;
CREATE POLICY system_all ON campaign_members TO trustfleet_system USING (true) WITH CHECK (true);
CREATE POLICY one_tenant ON campaign_members TO trustfleet_api USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY purge ON campaign_members TO CURRENT_USER USING (EXISTS (SELECT FROM tenants d
    WHERE d.tenant_id = campaign_members.tenant_id AND d.state = 'deleted' AND d.purge_at <= now()));
GRANT SELECT, UPDATE, DELETE ON campaign_members TO trustfleet_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON campaign_members TO trustfleet_system;

ALTER TABLE freezes ENABLE ROW LEVEL SECURITY;
ALTER TABLE freezes FORCE ROW LEVEL SECURITY;
CREATE POLICY system_all ON freezes TO trustfleet_system USING (true) WITH CHECK (true);
CREATE POLICY one_tenant ON freezes TO trustfleet_api USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY purge ON freezes TO CURRENT_USER USING (EXISTS (SELECT FROM tenants d
    WHERE d.tenant_id = freezes.tenant_id AND d.state = 'deleted' AND d.purge_at <= now()));
GRANT SELECT, INSERT, UPDATE, DELETE ON freezes TO trustfleet_api;
GRANT SELECT, UPDATE ON freezes TO trustfleet_system;
GRANT SELECT (tenant_id, job_id, held_until), UPDATE (held_until) ON outbox TO trustfleet_api;

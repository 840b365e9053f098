-- Bindings can be changed, and give services; the trustpoints that came by one follow it. Their certificates can be revoked
-- when it goes.

ALTER TABLE bindings
    ADD COLUMN services jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN revision integer NOT NULL DEFAULT 1,
    ADD COLUMN followed_revision integer NOT NULL DEFAULT 1,
    ADD COLUMN updated_at timestamptz,
    DROP CONSTRAINT bindings_leaving_check,
    ADD CONSTRAINT bindings_leaving_check CHECK (leaving IN ('keep', 'delete', 'revoke'));
COMMENT ON COLUMN bindings.services IS 'Services that its trustpoints are bound to, a list of names.';
COMMENT ON COLUMN bindings.revision IS 'Grows with every change.';
COMMENT ON COLUMN bindings.followed_revision IS 'The revision that all of its trustpoints have followed.';
COMMENT ON COLUMN bindings.updated_at IS 'When it was last changed; null: it is as it was made.';
GRANT UPDATE (followed_revision) ON bindings TO trustfleet_system;

ALTER TABLE trustpoints ADD COLUMN binding_revision integer NOT NULL DEFAULT 1;
COMMENT ON COLUMN trustpoints.binding_revision IS 'The revision of its binding that it has followed. Follows from state.';

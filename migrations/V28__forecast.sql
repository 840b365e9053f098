-- Coming renewals beside the budgets of CAs.

ALTER TABLE trustpoints ADD COLUMN spread jsonb;
COMMENT ON COLUMN trustpoints.spread IS 'Another moment for the renewal of one certificate than the policy''s, because its hour was too full; null: none.';
CREATE INDEX trustpoints_to_come ON trustpoints (tenant_id, ca_server_id, next_action_at) WHERE next_action_at IS NOT NULL;
COMMENT ON INDEX trustpoints_to_come IS 'Renewals of a CA by their moment, counted from the index alone.';

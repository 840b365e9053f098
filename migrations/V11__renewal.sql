-- Renewal by itself: when it is due. Follows from the trustpoint's state and its policy, filled in afterwards by whichever
-- replica comes first; a row whose plan is older than its policy's revision is planned anew.

ALTER TABLE trustpoints
    ADD COLUMN next_action_at timestamptz,
    ADD COLUMN planned_revision integer NOT NULL DEFAULT 0;
CREATE INDEX trustpoints_to_plan ON trustpoints (tenant_id, policy_id, planned_revision);
CREATE INDEX trustpoints_due ON trustpoints (next_action_at) WHERE next_action_at IS NOT NULL;
COMMENT ON COLUMN trustpoints.next_action_at IS 'When something is to be done without being asked; null: nothing, until something changes.';
COMMENT ON COLUMN trustpoints.planned_revision IS 'Revision of the policy by which next_action_at was found; 0: it is to be found anew.';

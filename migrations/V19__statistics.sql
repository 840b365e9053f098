-- Statistics of CMP sessions (S48), a copy of what stands in the trustpoint's state, for sums.

ALTER TABLE trustpoints ADD COLUMN statistics jsonb;
COMMENT ON COLUMN trustpoints.statistics IS 'Counts by name (requests.ir, polls, …), an object of numbers; null: nothing yet. Follows from state.';

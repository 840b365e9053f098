-- How often agents are heard of: who will not be in time for a renewal is told before.

ALTER TABLE agents ADD COLUMN gap_mean_s double precision, ADD COLUMN gap_most_s double precision;
COMMENT ON COLUMN agents.gap_mean_s IS 'Mean length of the gap between two signs of life that a random moment falls into, seconds, fading; null: nothing is known yet.';
COMMENT ON COLUMN agents.gap_most_s IS 'The longest such gap, seconds, fading.';

-- What agents see of the nodes of hot-standby pairs (S47), and how far their devices' clocks are off.

ALTER TABLE devices
    ADD COLUMN node_active boolean,
    ADD COLUMN node_since timestamptz,
    ADD COLUMN node_told_at timestamptz,
    ADD COLUMN switched_at timestamptz;
COMMENT ON COLUMN devices.node_active IS 'Whether it is the active node of its pair, as its agent sees it; null: the agent does not tell.';
COMMENT ON COLUMN devices.node_since IS 'Since when, by the agent''s clock.';
COMMENT ON COLUMN devices.node_told_at IS 'When the agent said so, by its clock: what was said before that changes nothing any more.';
COMMENT ON COLUMN devices.switched_at IS 'When it was last made the active node because its agent saw it so.';

ALTER TABLE agents ADD COLUMN clock_off_s bigint;
COMMENT ON COLUMN agents.clock_off_s IS 'How far its device''s clock was behind the controller''s at its last hello, seconds; negative: ahead; null: it is right, or the agent does not tell.';

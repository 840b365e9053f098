-- Hot-standby pairs (S47): the standby never applies for a certificate.

ALTER TABLE devices
    ADD COLUMN pair text,
    ADD COLUMN standby boolean NOT NULL DEFAULT false,
    ADD CHECK (pair IS NOT NULL OR NOT standby);
COMMENT ON COLUMN devices.pair IS 'Name of the hot-standby pair that it belongs to.';
COMMENT ON COLUMN devices.standby IS 'In a pair: it stands by.';
CREATE UNIQUE INDEX devices_active_of_pair ON devices (tenant_id, pair) WHERE pair IS NOT NULL AND NOT standby;
GRANT UPDATE (planned_revision) ON trustpoints TO trustfleet_api;

-- Indexes by which the fleet is counted for the metrics: the cost must not grow with the jobs of the past, nor with the
-- width of rows that hold certificates and orders.

CREATE INDEX jobs_by_end ON jobs (finished_at, tenant_id, state) WHERE finished_at IS NOT NULL;
COMMENT ON INDEX jobs_by_end IS 'Jobs that ended lately, counted from the index alone.';

CREATE INDEX certificates_by_slot ON certificates (tenant_id, slot);
COMMENT ON INDEX certificates_by_slot IS 'Certificates by slot, counted from the index alone.';

CREATE INDEX certificates_in_use ON certificates (tenant_id, trustpoint_id) INCLUDE (not_before, not_after)
    WHERE slot = 'active';
COMMENT ON INDEX certificates_in_use IS 'Lifetimes of the certificates in use, read from the index alone.';

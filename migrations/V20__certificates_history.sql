-- The history of a trustpoint: when a certificate took effect, and which other one took its place.

ALTER TABLE certificates
    ADD COLUMN activated_at timestamptz,
    ADD COLUMN replaced_by uuid,
    ADD COLUMN replaced_at timestamptz;
COMMENT ON COLUMN certificates.activated_at IS 'When the controller learned that it is in use; null: never, or it was before there was this column.';
COMMENT ON COLUMN certificates.replaced_by IS 'The certificate that took its place, in use or while it waited for that; null: none yet.';
COMMENT ON COLUMN certificates.replaced_at IS 'When that was.';

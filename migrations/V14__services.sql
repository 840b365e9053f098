-- What agents say of the services that take a certificate (a trustpoint's own services are in its state).

ALTER TABLE jobs ADD COLUMN in_service jsonb;
COMMENT ON COLUMN jobs.in_service IS 'What the agent said of the services that were to take the certificate.';

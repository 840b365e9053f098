-- Which key-encryption keys there are: a secret can be stored only under one of them, and one in use cannot be removed.

CREATE TABLE key_encryption_keys (
    kek_id text PRIMARY KEY,
    registered_at timestamptz NOT NULL
);
COMMENT ON TABLE key_encryption_keys IS 'Key-encryption keys that a controller has started with; ids only, never a key. Of no tenant.';
COMMENT ON COLUMN key_encryption_keys.kek_id IS 'Id of the key, made from a hash of it.';
COMMENT ON COLUMN key_encryption_keys.registered_at IS 'When a controller first started with it.';

-- Not checked for rows from before: the owner of the tables does not see them. The first start registers their key.
ALTER TABLE secrets ADD CONSTRAINT secrets_kek_id_fkey FOREIGN KEY (kek_id) REFERENCES key_encryption_keys (kek_id) NOT VALID;
CREATE INDEX secrets_by_kek ON secrets (kek_id);

GRANT SELECT, INSERT, DELETE ON key_encryption_keys TO trustfleet_system;
GRANT UPDATE (kek_id, ciphertext) ON secrets TO trustfleet_system;

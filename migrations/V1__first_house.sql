-- The first house: tenants and who may enter, what is configured, devices with their trustpoints, jobs on their way.
--
-- Two roles, made by the operator (or the lab's stack) before this runs, never by a migration:
--   trustfleet_api     every statement sees one tenant: setting trustfleet.tenant, enforced by row level security
--   trustfleet_system  group commit, outbox, inbox, token look-up: works across tenants, every row carries its tenant
-- Row level security is forced, so that even the owner of the tables sees nothing by accident.

CREATE FUNCTION current_tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('trustfleet.tenant', true), '')::uuid;
COMMENT ON FUNCTION current_tenant() IS 'Tenant of the transaction, set by TenantTx; null outside of one, and then no row is seen.';

CREATE TABLE tenants (
    tenant_id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE,
    display_name text NOT NULL,
    allow_weak_algorithms boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    updated_by text NOT NULL
);
COMMENT ON TABLE tenants IS 'Who shares this installation without seeing each other.';
COMMENT ON COLUMN tenants.tenant_id IS 'UUIDv7.';
COMMENT ON COLUMN tenants.name IS 'Name in URLs; 1 to 63 letters, digits, dot, underscore, dash.';
COMMENT ON COLUMN tenants.display_name IS 'Name for people.';
COMMENT ON COLUMN tenants.allow_weak_algorithms IS 'HMAC-SHA1 and the like may be configured (S8).';
COMMENT ON COLUMN tenants.created_at IS 'When it was made.';
COMMENT ON COLUMN tenants.updated_at IS 'When it was last changed.';
COMMENT ON COLUMN tenants.updated_by IS 'Name of the transaction that last changed it.';

CREATE TABLE api_tokens (
    token_id uuid PRIMARY KEY,
    tenant_id uuid REFERENCES tenants,
    token_hash bytea NOT NULL UNIQUE,
    role text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin', 'platform_admin')),
    description text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz,
    CHECK ((role = 'platform_admin') = (tenant_id IS NULL))
);
COMMENT ON TABLE api_tokens IS 'Bearer tokens of the REST API. Reachable only through the system role: who presents one has no tenant yet.';
COMMENT ON COLUMN api_tokens.token_id IS 'UUIDv7.';
COMMENT ON COLUMN api_tokens.tenant_id IS 'Its tenant; null for the platform.';
COMMENT ON COLUMN api_tokens.token_hash IS 'SHA-256 of the token (256 random bits, so a plain hash is enough).';
COMMENT ON COLUMN api_tokens.role IS 'What it may do.';
COMMENT ON COLUMN api_tokens.description IS 'What it is for.';
COMMENT ON COLUMN api_tokens.created_at IS 'When it was made.';
COMMENT ON COLUMN api_tokens.expires_at IS 'When it ends; null: never.';
COMMENT ON COLUMN api_tokens.last_used_at IS 'When it was last used, to the minute.';
COMMENT ON COLUMN api_tokens.revoked_at IS 'When it was taken back.';

CREATE TABLE join_tokens (
    tenant_id uuid NOT NULL REFERENCES tenants,
    token_id uuid NOT NULL,
    secret_hash bytea NOT NULL,
    agent_name text,
    uses_left integer NOT NULL CHECK (uses_left >= 0),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, token_id),
    UNIQUE (token_id)
);
COMMENT ON TABLE join_tokens IS 'One-time tokens by which agents join.';
COMMENT ON COLUMN join_tokens.tenant_id IS 'Tenant that the agent will belong to.';
COMMENT ON COLUMN join_tokens.token_id IS 'UUIDv7, the second part of the token.';
COMMENT ON COLUMN join_tokens.secret_hash IS 'SHA-256 of the third part of the token.';
COMMENT ON COLUMN join_tokens.agent_name IS 'Name that the agent must have; null: its own choice.';
COMMENT ON COLUMN join_tokens.uses_left IS 'How many agents may still join with it.';
COMMENT ON COLUMN join_tokens.created_at IS 'When it was made.';
COMMENT ON COLUMN join_tokens.expires_at IS 'When it ends.';

CREATE TABLE agents (
    tenant_id uuid NOT NULL REFERENCES tenants,
    agent_id uuid NOT NULL,
    name text NOT NULL,
    sign_key bytea NOT NULL,
    seal_key bytea NOT NULL,
    software text NOT NULL,
    joined_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, agent_id),
    UNIQUE (tenant_id, name),
    UNIQUE (agent_id)
);
COMMENT ON TABLE agents IS 'Device agents that have joined.';
COMMENT ON COLUMN agents.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN agents.agent_id IS 'UUIDv7; names its queue on the broker.';
COMMENT ON COLUMN agents.name IS 'Name in URLs.';
COMMENT ON COLUMN agents.sign_key IS 'Ed25519 public key: proves possession, verifies reports.';
COMMENT ON COLUMN agents.seal_key IS 'X25519 public key: secrets are sealed to it.';
COMMENT ON COLUMN agents.software IS 'Version of its software at the last hello.';
COMMENT ON COLUMN agents.joined_at IS 'When it joined.';
COMMENT ON COLUMN agents.last_seen_at IS 'Last session, hello or report.';

CREATE TABLE secrets (
    tenant_id uuid NOT NULL REFERENCES tenants,
    secret_id uuid NOT NULL,
    kek_id text NOT NULL,
    ciphertext bytea NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, secret_id)
);
COMMENT ON TABLE secrets IS 'Secrets, AES-256-GCM under the key-encryption key, bound to tenant and id as associated data (S13).';
COMMENT ON COLUMN secrets.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN secrets.secret_id IS 'UUIDv7.';
COMMENT ON COLUMN secrets.kek_id IS 'Which key-encryption key it is encrypted with.';
COMMENT ON COLUMN secrets.ciphertext IS 'Nonce (12 bytes), ciphertext, tag.';
COMMENT ON COLUMN secrets.created_at IS 'When it was stored.';

CREATE TABLE entities (
    tenant_id uuid NOT NULL REFERENCES tenants,
    entity_id uuid NOT NULL,
    name text NOT NULL,
    spec jsonb NOT NULL,
    revision integer NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    updated_by text NOT NULL,
    PRIMARY KEY (tenant_id, entity_id),
    UNIQUE (tenant_id, name)
);
COMMENT ON TABLE entities IS 'PKI entities: subject and alternative names (S2).';
COMMENT ON COLUMN entities.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN entities.entity_id IS 'UUIDv7.';
COMMENT ON COLUMN entities.name IS 'Name in URLs.';
COMMENT ON COLUMN entities.spec IS 'EntitySpec as JSON.';
COMMENT ON COLUMN entities.revision IS 'Grows with every change, from 1.';
COMMENT ON COLUMN entities.created_at IS 'When it was made.';
COMMENT ON COLUMN entities.updated_at IS 'When it was last changed.';
COMMENT ON COLUMN entities.updated_by IS 'Name of the transaction that last changed it.';

CREATE TABLE ca_servers (
    tenant_id uuid NOT NULL REFERENCES tenants,
    ca_server_id uuid NOT NULL,
    name text NOT NULL,
    spec jsonb NOT NULL,
    revision integer NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    updated_by text NOT NULL,
    PRIMARY KEY (tenant_id, ca_server_id),
    UNIQUE (tenant_id, name)
);
COMMENT ON TABLE ca_servers IS 'CA servers: name, endpoints, anchors (S5, S6, S16).';
COMMENT ON COLUMN ca_servers.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN ca_servers.ca_server_id IS 'UUIDv7.';
COMMENT ON COLUMN ca_servers.name IS 'Name in URLs.';
COMMENT ON COLUMN ca_servers.spec IS 'CaServerSpec as JSON.';
COMMENT ON COLUMN ca_servers.revision IS 'Grows with every change, from 1.';
COMMENT ON COLUMN ca_servers.created_at IS 'When it was made.';
COMMENT ON COLUMN ca_servers.updated_at IS 'When it was last changed.';
COMMENT ON COLUMN ca_servers.updated_by IS 'Name of the transaction that last changed it.';

CREATE TABLE policies (
    tenant_id uuid NOT NULL REFERENCES tenants,
    policy_id uuid NOT NULL,
    name text NOT NULL,
    spec jsonb NOT NULL,
    revision integer NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    updated_by text NOT NULL,
    PRIMARY KEY (tenant_id, policy_id),
    UNIQUE (tenant_id, name)
);
COMMENT ON TABLE policies IS 'CMP policies: the settings of CMP sessions (S1 to S26).';
COMMENT ON COLUMN policies.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN policies.policy_id IS 'UUIDv7.';
COMMENT ON COLUMN policies.name IS 'Name in URLs (S1).';
COMMENT ON COLUMN policies.spec IS 'PolicySpec as JSON.';
COMMENT ON COLUMN policies.revision IS 'Grows with every change, from 1.';
COMMENT ON COLUMN policies.created_at IS 'When it was made.';
COMMENT ON COLUMN policies.updated_at IS 'When it was last changed.';
COMMENT ON COLUMN policies.updated_by IS 'Name of the transaction that last changed it.';

CREATE TABLE devices (
    tenant_id uuid NOT NULL REFERENCES tenants,
    device_id uuid NOT NULL,
    name text NOT NULL,
    agent_id uuid,
    serial text,
    mac text,
    labels jsonb NOT NULL DEFAULT '{}',
    shard smallint NOT NULL CHECK (shard BETWEEN 0 AND 255),
    version bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    updated_by text NOT NULL,
    PRIMARY KEY (tenant_id, device_id),
    UNIQUE (tenant_id, name),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents (tenant_id, agent_id)
);
CREATE INDEX devices_by_agent ON devices (tenant_id, agent_id);
COMMENT ON TABLE devices IS 'Registered devices. The row and its trustpoints are the truth; the actor in memory is a cache of them.';
COMMENT ON COLUMN devices.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN devices.device_id IS 'UUIDv7.';
COMMENT ON COLUMN devices.name IS 'Name in URLs and folders.';
COMMENT ON COLUMN devices.agent_id IS 'The agent in front of it.';
COMMENT ON COLUMN devices.serial IS 'Serial number as registered by an operator.';
COMMENT ON COLUMN devices.mac IS 'MAC address as registered by an operator.';
COMMENT ON COLUMN devices.labels IS 'Labels, an object of strings.';
COMMENT ON COLUMN devices.shard IS 'Hash of the id, 0 to 255, for later partitioning.';
COMMENT ON COLUMN devices.version IS 'Row version: guards every change of the device and its trustpoints.';
COMMENT ON COLUMN devices.created_at IS 'When it was registered.';
COMMENT ON COLUMN devices.updated_at IS 'When it was last changed.';
COMMENT ON COLUMN devices.updated_by IS 'Name of the transaction that last changed it.';

CREATE TABLE trustpoints (
    tenant_id uuid NOT NULL REFERENCES tenants,
    trustpoint_id uuid NOT NULL,
    device_id uuid NOT NULL,
    name text NOT NULL,
    entity_id uuid NOT NULL,
    ca_server_id uuid NOT NULL,
    policy_id uuid NOT NULL,
    status text NOT NULL,
    not_after timestamptz,
    state jsonb NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, trustpoint_id),
    UNIQUE (tenant_id, device_id, name),
    FOREIGN KEY (tenant_id, device_id) REFERENCES devices (tenant_id, device_id),
    FOREIGN KEY (tenant_id, entity_id) REFERENCES entities (tenant_id, entity_id),
    FOREIGN KEY (tenant_id, ca_server_id) REFERENCES ca_servers (tenant_id, ca_server_id),
    FOREIGN KEY (tenant_id, policy_id) REFERENCES policies (tenant_id, policy_id)
);
CREATE INDEX trustpoints_by_expiry ON trustpoints (tenant_id, not_after);
COMMENT ON TABLE trustpoints IS 'Trustpoints (S17). Written only together with a new version of their device.';
COMMENT ON COLUMN trustpoints.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN trustpoints.trustpoint_id IS 'UUIDv7.';
COMMENT ON COLUMN trustpoints.device_id IS 'Its device.';
COMMENT ON COLUMN trustpoints.name IS 'Name on the device, at most 32 characters (S17).';
COMMENT ON COLUMN trustpoints.entity_id IS 'Subject and alternative names.';
COMMENT ON COLUMN trustpoints.ca_server_id IS 'The CA.';
COMMENT ON COLUMN trustpoints.policy_id IS 'The settings.';
COMMENT ON COLUMN trustpoints.status IS 'State in one word, for lists; follows from state.';
COMMENT ON COLUMN trustpoints.not_after IS 'End of the certificate in use; follows from state.';
COMMENT ON COLUMN trustpoints.state IS 'The whole state, tagged with its version.';
COMMENT ON COLUMN trustpoints.updated_at IS 'When it was last changed.';

CREATE TABLE jobs (
    tenant_id uuid NOT NULL REFERENCES tenants,
    job_id uuid NOT NULL,
    device_id uuid NOT NULL,
    trustpoint_id uuid NOT NULL,
    agent_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('ir', 'cr', 'kur', 'activate')),
    state text NOT NULL,
    request_key text,
    requested_by text NOT NULL,
    task jsonb NOT NULL,
    failure jsonb,
    public_key_sha256 text,
    transaction_id text,
    traceparent text,
    sequence bigint,
    created_at timestamptz NOT NULL,
    published_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, job_id),
    FOREIGN KEY (tenant_id, device_id) REFERENCES devices (tenant_id, device_id)
);
CREATE INDEX jobs_by_device ON jobs (tenant_id, device_id, job_id);
CREATE INDEX jobs_open_by_agent ON jobs (tenant_id, agent_id) WHERE finished_at IS NULL;
CREATE UNIQUE INDEX jobs_by_request_key ON jobs (tenant_id, trustpoint_id, request_key) WHERE request_key IS NOT NULL;
COMMENT ON TABLE jobs IS 'Jobs for agents, kept after their end as the history of a trustpoint.';
COMMENT ON COLUMN jobs.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN jobs.job_id IS 'UUIDv7.';
COMMENT ON COLUMN jobs.device_id IS 'Its device.';
COMMENT ON COLUMN jobs.trustpoint_id IS 'Its trustpoint; no foreign key: the history outlives the trustpoint.';
COMMENT ON COLUMN jobs.agent_id IS 'The agent it is for.';
COMMENT ON COLUMN jobs.kind IS 'CMP request, or activation.';
COMMENT ON COLUMN jobs.state IS 'What it waits for, or how it ended.';
COMMENT ON COLUMN jobs.request_key IS 'Idempotency key of the client: the same key finds the same job.';
COMMENT ON COLUMN jobs.requested_by IS 'Who asked for it.';
COMMENT ON COLUMN jobs.task IS 'What the agent is to do, fixed when the job was accepted; secrets only by reference.';
COMMENT ON COLUMN jobs.failure IS 'Why it failed.';
COMMENT ON COLUMN jobs.public_key_sha256 IS 'Public-key fingerprint, reported before the CA was asked.';
COMMENT ON COLUMN jobs.transaction_id IS 'transactionID of the CMP exchange, hex.';
COMMENT ON COLUMN jobs.traceparent IS 'W3C trace context of the request that made it.';
COMMENT ON COLUMN jobs.sequence IS 'Sequence of its last publication.';
COMMENT ON COLUMN jobs.created_at IS 'When it was accepted.';
COMMENT ON COLUMN jobs.published_at IS 'When it was last published.';
COMMENT ON COLUMN jobs.started_at IS 'When the agent started.';
COMMENT ON COLUMN jobs.finished_at IS 'When it ended.';
COMMENT ON COLUMN jobs.updated_at IS 'When it was last changed.';

CREATE TABLE outbox (
    tenant_id uuid NOT NULL REFERENCES tenants,
    outbox_id bigint GENERATED ALWAYS AS IDENTITY,
    job_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    claimed_until timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, outbox_id),
    FOREIGN KEY (tenant_id, job_id) REFERENCES jobs (tenant_id, job_id)
);
CREATE UNIQUE INDEX outbox_by_job ON outbox (tenant_id, job_id);
CREATE INDEX outbox_in_order ON outbox (outbox_id);
COMMENT ON TABLE outbox IS 'Jobs to be published; a row goes away when the broker has confirmed.';
COMMENT ON COLUMN outbox.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN outbox.outbox_id IS 'Order of publication, and the sequence in the signed message.';
COMMENT ON COLUMN outbox.job_id IS 'The job.';
COMMENT ON COLUMN outbox.created_at IS 'When it was put here.';
COMMENT ON COLUMN outbox.claimed_until IS 'A replica is publishing it until then; later any other may.';
COMMENT ON COLUMN outbox.attempts IS 'How often it was claimed.';

CREATE TABLE certificates (
    tenant_id uuid NOT NULL REFERENCES tenants,
    certificate_id uuid NOT NULL,
    device_id uuid NOT NULL,
    trustpoint_id uuid NOT NULL,
    job_id uuid NOT NULL,
    slot text NOT NULL CHECK (slot IN ('active', 'staged', 'previous', 'retired')),
    serial text NOT NULL,
    subject text NOT NULL,
    issuer text NOT NULL,
    not_before timestamptz NOT NULL,
    not_after timestamptz NOT NULL,
    sha256 text NOT NULL,
    public_key_sha256 text NOT NULL,
    file text,
    der bytea NOT NULL,
    chain bytea[] NOT NULL,
    issued_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, certificate_id),
    UNIQUE (tenant_id, job_id),
    FOREIGN KEY (tenant_id, device_id) REFERENCES devices (tenant_id, device_id)
);
CREATE INDEX certificates_by_expiry ON certificates (tenant_id, not_after, certificate_id);
CREATE INDEX certificates_by_trustpoint ON certificates (tenant_id, trustpoint_id);
COMMENT ON TABLE certificates IS 'Certificates issued to devices.';
COMMENT ON COLUMN certificates.tenant_id IS 'Its tenant.';
COMMENT ON COLUMN certificates.certificate_id IS 'UUIDv7.';
COMMENT ON COLUMN certificates.device_id IS 'Its device.';
COMMENT ON COLUMN certificates.trustpoint_id IS 'Its trustpoint.';
COMMENT ON COLUMN certificates.job_id IS 'The job that brought it.';
COMMENT ON COLUMN certificates.slot IS 'Where it stands on its trustpoint.';
COMMENT ON COLUMN certificates.serial IS 'Serial number, upper-case hex.';
COMMENT ON COLUMN certificates.subject IS 'Subject, RFC 4514.';
COMMENT ON COLUMN certificates.issuer IS 'Issuer, RFC 4514.';
COMMENT ON COLUMN certificates.not_before IS 'First moment of validity.';
COMMENT ON COLUMN certificates.not_after IS 'Last moment of validity.';
COMMENT ON COLUMN certificates.sha256 IS 'SHA-256 of the certificate, hex.';
COMMENT ON COLUMN certificates.public_key_sha256 IS 'SHA-256 of the subjectPublicKeyInfo, hex.';
COMMENT ON COLUMN certificates.file IS 'File on the device, as the agent reported it.';
COMMENT ON COLUMN certificates.der IS 'The certificate.';
COMMENT ON COLUMN certificates.chain IS 'CA certificates that came with it.';
COMMENT ON COLUMN certificates.issued_at IS 'When the controller learned of it.';

CREATE TABLE audit (
    tenant_id uuid NOT NULL,
    audit_id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    object_kind text NOT NULL,
    object_id uuid NOT NULL,
    detail jsonb NOT NULL,
    PRIMARY KEY (tenant_id, audit_id)
);
COMMENT ON TABLE audit IS 'Who did what when; append-only: the roles may insert and read.';
COMMENT ON COLUMN audit.tenant_id IS 'Tenant it belongs to.';
COMMENT ON COLUMN audit.audit_id IS 'Order of insertion.';
COMMENT ON COLUMN audit.at IS 'When.';
COMMENT ON COLUMN audit.actor IS 'Who: a token, an agent or the controller itself.';
COMMENT ON COLUMN audit.action IS 'What: a snake_case word.';
COMMENT ON COLUMN audit.object_kind IS 'Kind of the object: device, trustpoint, job and so on.';
COMMENT ON COLUMN audit.object_id IS 'Id of the object.';
COMMENT ON COLUMN audit.detail IS 'What else matters; never a secret.';

-- The walls. Each tenant-bound table gets the same two policies.
DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['tenants', 'join_tokens', 'agents', 'secrets', 'entities', 'ca_servers', 'policies', 'devices',
                             'trustpoints', 'jobs', 'outbox', 'certificates', 'audit', 'api_tokens']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY system_all ON %I TO trustfleet_system USING (true) WITH CHECK (true)', t);
        IF t <> 'api_tokens' THEN
            EXECUTE format('CREATE POLICY one_tenant ON %I TO trustfleet_api USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant())', t);
        END IF;
    END LOOP;
END $$;

GRANT USAGE ON SCHEMA public TO trustfleet_api, trustfleet_system;
GRANT SELECT ON tenants, agents, trustpoints, jobs, certificates, audit TO trustfleet_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON entities, ca_servers, policies, devices TO trustfleet_api;
GRANT SELECT, INSERT, DELETE ON join_tokens, secrets TO trustfleet_api;
GRANT INSERT ON audit TO trustfleet_api;
GRANT SELECT, INSERT, UPDATE ON tenants, api_tokens, join_tokens, agents, devices, jobs, certificates TO trustfleet_system;
GRANT SELECT, INSERT, UPDATE, DELETE ON trustpoints, outbox TO trustfleet_system;
GRANT SELECT, DELETE ON secrets TO trustfleet_system;
GRANT SELECT ON entities, ca_servers, policies TO trustfleet_system;
GRANT SELECT, INSERT ON audit TO trustfleet_system;
-- So that a controller can refuse a schema that it was not made for.
GRANT SELECT ON refinery_schema_history TO trustfleet_api, trustfleet_system;

-- Tokens that may do only a part of what their role may, and who made them.

ALTER TABLE api_tokens
    ADD COLUMN scopes text[] NOT NULL DEFAULT '{}',
    ADD COLUMN created_by text NOT NULL DEFAULT 'controller',
    ADD COLUMN person text NOT NULL DEFAULT '';
-- Row level security is forced: an UPDATE of the owner would reach no row.
ALTER TABLE api_tokens ALTER COLUMN person DROP DEFAULT, ALTER COLUMN person TYPE text USING 'token:' || token_id;
COMMENT ON COLUMN api_tokens.scopes IS 'What of its role it may use, such as devices:read; empty: all of it.';
COMMENT ON COLUMN api_tokens.created_by IS 'Who made it, in the words of the audit log.';
COMMENT ON COLUMN api_tokens.person IS 'Whom it acts for: itself when a platform administrator made it, otherwise whomever its maker acted for. Two tokens of one person are not four eyes.';

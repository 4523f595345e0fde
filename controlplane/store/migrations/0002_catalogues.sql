-- What instances offer outlives the control plane, so that lists are answered while they start.

CREATE TABLE mcp_catalogues (
    instance_id  uuid        NOT NULL REFERENCES mcp_instances (id) ON DELETE CASCADE, -- whose server said it
    section      text        NOT NULL,                      -- what is listed; one row each
    items        bytea       NOT NULL,                      -- the JSON array, UTF-8, each item as its server wrote it: jsonb would refuse some, and change others
    digest       bytea       NOT NULL,                      -- SHA-256 of `items`; a list that has not changed is not written again
    seen_at      timestamptz NOT NULL,                      -- when the server first gave this very list

    PRIMARY KEY (instance_id, section),
    CONSTRAINT catalogue_section_is_known CHECK (section IN ('tools', 'prompts', 'resources', 'resource_templates')),
    CONSTRAINT catalogue_digest_is_sha256 CHECK (length(digest) = 32)
);
COMMENT ON TABLE mcp_catalogues IS 'What servers last said they offer, to answer lists while they start; gone when the instance is deleted';

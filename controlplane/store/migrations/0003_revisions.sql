-- A revision says where its source comes from, what its first build found and what became of it, so that an
-- instance can be built anew, switched over and rolled back.

ALTER TABLE mcp_specs
    ADD COLUMN cause        text        NOT NULL DEFAULT 'deploy', -- how it came to be: deploy, redeploy, patch, rollback to 3
    ADD COLUMN origin       jsonb,                          -- {"url", "ref", "subdir", "sha256", "size_bytes"}; NULL: the source is in this row, or there is none
    ADD COLUMN dependencies jsonb       NOT NULL DEFAULT '[]', -- packages to install beside what the source asks for, by name
    ADD COLUMN build_command text,                          -- the owner's own build step; NULL: none
    ADD COLUMN resolved     jsonb,                          -- what its first build found: {"language", "entry_point", "facts"}; NULL: not built yet
    ADD COLUMN ran_at       timestamptz,                    -- when it was first seen to run; NULL: it never completed a handshake
    ADD COLUMN failure      jsonb,                          -- why it was not switched over to (an Evidence); NULL: nothing failed
    DROP CONSTRAINT spec_runs_something,
    ADD CONSTRAINT spec_runs_something CHECK (
        command IS NOT NULL OR entry_point IS NOT NULL OR source IS NOT NULL OR origin IS NOT NULL
    ),
    ADD CONSTRAINT spec_dependencies_is_array CHECK (jsonb_typeof(dependencies) = 'array');
COMMENT ON TABLE mcp_specs IS 'What to run, as immutable revisions, the latest few of each instance; gone, secrets included, as soon as it is deleted';

-- Until now, a second revision came of a patch alone, and of the one in force it is known whether it ran.
UPDATE mcp_specs SET cause = 'patch' WHERE revision > 1;
UPDATE mcp_specs AS spec
   SET ran_at = instance.updated_at
  FROM mcp_instances AS instance
 WHERE instance.id = spec.instance_id AND instance.revision = spec.revision AND instance.ever_ran;

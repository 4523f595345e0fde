-- Folders of the host that an instance sees.

ALTER TABLE mcp_specs ADD COLUMN mounts jsonb NOT NULL DEFAULT '[]';    -- [{"source", "target", "writable"}]: folders of the host, and where it sees them

-- A sample says what lies in the instance's folder, too.

ALTER TABLE mcp_instance_metrics ADD COLUMN disk_mb double precision; -- MiB in its folder that are its own, when last counted; NULL: not counted yet

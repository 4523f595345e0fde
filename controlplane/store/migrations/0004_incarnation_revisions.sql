-- A process says which revision it ran, so that a failure can be told to be of the change that came before it.

ALTER TABLE mcp_incarnations
    ADD COLUMN revision integer;                            -- the mcp_specs row that it ran, which may be gone; NULL: from before this was kept

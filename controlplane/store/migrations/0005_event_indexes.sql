-- Events are looked for over all instances: one owner's newest, and the rare ones among everybody's.

CREATE INDEX mcp_events_owner ON mcp_events (owner, timestamp, id);     -- all of one owner's, newest first
CREATE INDEX mcp_events_type ON mcp_events (type, timestamp, id);       -- what is rare among everybody's: failures

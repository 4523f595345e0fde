-- Several control planes on one database: each instance has one holder at a time, by a lease kept by this database's clock.
CREATE TABLE mcp_nodes (
    id           uuid        PRIMARY KEY,
    url          text        NOT NULL,
    version      text        NOT NULL,
    epoch        bigint      NOT NULL DEFAULT 1,
    started_at   timestamptz NOT NULL DEFAULT now(),
    lease_until  timestamptz NOT NULL,

    CONSTRAINT node_url_has_length CHECK (length(url) BETWEEN 1 AND 1024),
    CONSTRAINT node_epoch_from_one CHECK (epoch >= 1)
);
COMMENT ON TABLE mcp_nodes IS 'Control planes that share this database';

ALTER TABLE mcp_instances ADD COLUMN node_id uuid;
ALTER TABLE mcp_instances ADD COLUMN epoch bigint NOT NULL DEFAULT 0;
CREATE INDEX mcp_instances_node ON mcp_instances (node_id) WHERE deleted_at IS NULL;

DROP TRIGGER mcp_instances_tell ON mcp_instances;
CREATE TRIGGER mcp_instances_tell AFTER INSERT OR DELETE OR UPDATE OF desired, revision, labels, deleted_at, node_id ON mcp_instances
    FOR EACH ROW EXECUTE FUNCTION mcp_tell('instances', 'id');

-- Tokens for some instances only.
ALTER TABLE mcp_tokens ADD COLUMN instances uuid[];
ALTER TABLE mcp_tokens ADD CONSTRAINT token_instances_not_empty CHECK (cardinality(instances) > 0);

-- Who did what.
CREATE TABLE mcp_audit (
    timestamp   timestamptz NOT NULL,
    actor       text,
    credential  text,
    address     text        NOT NULL,
    action      text        NOT NULL,
    target      text        NOT NULL DEFAULT '',
    owner       text,
    status      integer     NOT NULL,
    request_id  text        NOT NULL,
    count       integer     NOT NULL DEFAULT 1,
    id          bigint      NOT NULL DEFAULT nextval('mcp_history_id')
) PARTITION BY RANGE (timestamp);
COMMENT ON TABLE mcp_audit IS 'Who did what, and what came of it';
CREATE INDEX mcp_audit_order ON mcp_audit (timestamp, id);
CREATE INDEX mcp_audit_actor ON mcp_audit (actor, timestamp, id);

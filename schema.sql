-- Corral's database: the whole schema, readable top to bottom.
--
-- A user owns instances and holds tokens. An instance is a named, supervised
-- MCP server; what it runs is a spec, kept as immutable revisions. `desired` is
-- the owner's wish and is written before anything is done about it; `state` is
-- what was last seen, written behind the fact, in batches. Every process of an
-- instance is one incarnation; those that failed keep a post-mortem. Logs,
-- metrics and events are append-only and partitioned by day (UTC), so that
-- forgetting is DROP TABLE. What is not here, Corral can do without.
--
-- Applied by the control plane alone (controlplane/store/migrate.py), in one
-- transaction, under an advisory lock, to a database that has no table of ours.
-- A later version comes by controlplane/store/migrations/NNNN_name.sql; a test
-- proves that both ways lead to the same schema. Columns that a migration adds
-- stand last in their table.
--
-- Times are timestamptz; names that end in _mb are MiB, in _ms milliseconds,
-- in _s seconds. Every column says what it holds and, where it may be NULL, what
-- NULL means. Text is free of NUL and lone surrogates: they are written as visible
-- escapes (`\x00`, `\ud800`). Secrets: only mcp_specs.env and mcp_secrets.box, which are encrypted.

CREATE TABLE mcp_schema (
    version     integer     PRIMARY KEY,                -- the highest one is the schema's version
    name        text        NOT NULL,                   -- `schema`, or the migration's name
    applied_at  timestamptz NOT NULL DEFAULT now()      -- when this database reached the version
);
COMMENT ON TABLE mcp_schema IS 'Which versions of the schema this database has been through';
INSERT INTO mcp_schema (version, name) VALUES (10, 'schema');


-- Words ------------------------------------------------------------------------

CREATE TYPE mcp_role AS ENUM (
    'viewer',       -- reads
    'caller',       -- + execute and MCP
    'deployer',     -- + deploy, stop, delete its own
    'admin'         -- everything, of everybody
);

CREATE TYPE mcp_desired AS ENUM (
    'running',      -- deployed or started: starts again at boot
    'stopped',      -- stopped by its owner: stays down
    'deleted'       -- removed: only its history is left
);

CREATE TYPE mcp_state AS ENUM (
    'pending',      -- accepted                  stopped, failed -> pending
    'preparing',    -- fetch, install, build     pending -> preparing
    'starting',     -- spawned, no handshake yet preparing, backoff -> starting
    'running',      -- serves calls              starting -> running
    'backoff',      -- waits to start again      starting, running -> backoff
    'draining',     -- being stopped             any but stopped -> draining
    'stopped',      -- no process                draining, running -> stopped
    'failed'        -- given up, with a reason   any but draining, stopped -> failed
);

CREATE TYPE mcp_source_type AS ENUM (
    'mcp_config',   -- a command as every MCP client writes it
    'direct',       -- one source file
    'git',          -- a repository
    'zip',          -- an archive
    'tar'           -- an archive
);

CREATE TYPE mcp_stream AS ENUM (
    'stdout',       -- printed by the server, not part of its protocol
    'stderr',       -- printed by the server
    'system',       -- said by Corral about the instance
    'build'         -- printed while fetching, installing or building
);


-- Users and tokens -------------------------------------------------------------

CREATE TABLE mcp_users (
    name        text        PRIMARY KEY,                -- chosen by the administrator; owns instances and tokens
    role        mcp_role    NOT NULL,                   -- ceiling of what any of its tokens may do
    disabled    boolean     NOT NULL DEFAULT false,     -- true: none of its tokens is accepted
    created_at  timestamptz NOT NULL DEFAULT now(),     -- when it was made
    quotas      jsonb       NOT NULL DEFAULT '{}',      -- instead of the operator's settings: {"instances": 3, "calls_per_day": 0}; 0: no limit

    CONSTRAINT user_name_has_length CHECK (length(name) BETWEEN 1 AND 255),
    CONSTRAINT user_quotas_is_object CHECK (jsonb_typeof(quotas) = 'object')
);
COMMENT ON TABLE mcp_users IS 'Owners of instances';

CREATE TABLE mcp_tokens (
    id            uuid        PRIMARY KEY,              -- names the token in the API; no credential
    owner         text        NOT NULL REFERENCES mcp_users (name) ON DELETE CASCADE, -- whose instances it opens
    name          text        NOT NULL,                 -- what its owner calls it; not unique
    role          mcp_role    NOT NULL,                 -- what it may do, capped by the owner's role
    digest        bytea       NOT NULL UNIQUE,          -- SHA-256 of the token, 32 bytes; the token itself is kept nowhere
    created_at    timestamptz NOT NULL DEFAULT now(),   -- when it was made
    expires_at    timestamptz,                          -- NULL: does not expire
    last_used_at  timestamptz,                          -- to about a minute; NULL: not used yet
    instances     uuid[],                               -- the only ones it opens; NULL: all of its owner's, those to come included

    CONSTRAINT token_digest_is_sha256 CHECK (length(digest) = 32),
    CONSTRAINT token_instances_not_empty CHECK (cardinality(instances) > 0)
);
COMMENT ON TABLE mcp_tokens IS 'API tokens, by digest';
CREATE INDEX mcp_tokens_owner ON mcp_tokens (owner);

CREATE TABLE mcp_secrets (
    owner       text        NOT NULL REFERENCES mcp_users (name) ON DELETE CASCADE, -- whose instances may name it
    name        text        NOT NULL,                   -- what `${secret:NAME}` says
    box         bytea       NOT NULL,                   -- AES-256-GCM of the value, bound to owner and name
    created_at  timestamptz NOT NULL DEFAULT now(),     -- when it was first set
    updated_at  timestamptz NOT NULL DEFAULT now(),     -- when its value was last set

    PRIMARY KEY (owner, name),
    CONSTRAINT secret_name_is_variable CHECK (name ~ '^[A-Za-z_][A-Za-z0-9_]{0,127}$')
);
COMMENT ON TABLE mcp_secrets IS 'Values that instances get by `${secret:NAME}`; they outlive the instances';


-- Control planes ---------------------------------------------------------------
--
-- Any number of them may share this database. Each holds a lease, kept by this
-- database's clock, and with it the instances that name it; those of a lease that
-- has run out may be taken over. A holder that cannot renew in time has ended its
-- processes by then, so that none ever runs twice.

CREATE TABLE mcp_nodes (
    id           uuid        PRIMARY KEY,                   -- of a CORRAL_HOME; stays the same over restarts
    url          text        NOT NULL,                      -- where the others reach it: http://10.0.0.7:8000
    version      text        NOT NULL,                      -- of its Corral
    epoch        bigint      NOT NULL DEFAULT 1,            -- grows when its lease is taken anew: who has an older one has lost it
    started_at   timestamptz NOT NULL DEFAULT now(),        -- when this epoch began
    lease_until  timestamptz NOT NULL,                      -- past: it is dead, or as good as

    CONSTRAINT node_url_has_length CHECK (length(url) BETWEEN 1 AND 1024),
    CONSTRAINT node_epoch_from_one CHECK (epoch >= 1)
);
COMMENT ON TABLE mcp_nodes IS 'Control planes that share this database';


-- Instances and what they run --------------------------------------------------

CREATE TABLE mcp_instances (
    id           uuid        PRIMARY KEY,                   -- the API's instance_id
    owner        text        NOT NULL REFERENCES mcp_users (name), -- who may see and use it
    name         text        NOT NULL,                      -- unique among its owner's that are not deleted
    language     text        NOT NULL,                      -- of the current revision: python, node, go …; empty until that is known
    status       text        NOT NULL GENERATED ALWAYS AS ( -- the API's word for `state`, or deleted
        CASE WHEN deleted_at IS NOT NULL THEN 'deleted'
             WHEN state = 'pending'   THEN 'pending'
             WHEN state = 'preparing' THEN 'building'
             WHEN state = 'starting'  THEN 'starting'
             WHEN state = 'running'   THEN 'running'
             WHEN state = 'backoff'   THEN 'restarting'
             WHEN state = 'draining'  THEN 'stopping'
             WHEN state = 'stopped'   THEN 'stopped'
             WHEN state = 'failed'    THEN 'failed'
        END) STORED,
    created_at   timestamptz NOT NULL,                      -- when it was deployed
    updated_at   timestamptz NOT NULL,                      -- last change of spec, wish or state
    desired      mcp_desired NOT NULL,                      -- the owner's wish, written before it is acted upon
    state        mcp_state   NOT NULL,                      -- as last seen; may lag by a second
    phase        text        NOT NULL DEFAULT '',           -- the step inside `state`: install, handshake …; may be empty
    revision     integer     NOT NULL,                      -- the mcp_specs row in force
    labels       jsonb       NOT NULL DEFAULT '{}',         -- the owner's own words: {"team": "blue"}
    uid          integer,                                   -- host uid its processes run as; NULL: Corral's own (it is not root)
    ever_ran     boolean     NOT NULL DEFAULT false,        -- this revision has completed a handshake
    restarts     integer     NOT NULL DEFAULT 0,            -- starts after a crash, since it was deployed
    incarnation  integer     NOT NULL DEFAULT 0,            -- number of its latest process; 0: none yet
    last_error   jsonb,                                     -- why it failed last (an Evidence); NULL: it never did
    deleted_at   timestamptz,                               -- NULL: it exists
    node_id      uuid,                                      -- the mcp_nodes row that runs it; NULL: nobody, it may be taken
    epoch        bigint      NOT NULL DEFAULT 0,            -- grows with every change of `node_id`: what an older holder writes does not count

    CONSTRAINT instance_name_is_label CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    CONSTRAINT deleted_has_time CHECK ((desired = 'deleted') = (deleted_at IS NOT NULL)),
    CONSTRAINT instance_counts_not_negative CHECK (restarts >= 0 AND incarnation >= 0 AND revision >= 1),
    CONSTRAINT instance_labels_is_object CHECK (jsonb_typeof(labels) = 'object'),
    CONSTRAINT instance_uid_is_not_root CHECK (uid > 0)
) WITH (fillfactor = 70);                                   -- room to rewrite a row in place: `state` changes often
COMMENT ON TABLE mcp_instances IS 'Named, supervised MCP servers; deleted ones stay until their history is forgotten';
CREATE UNIQUE INDEX mcp_instances_live_name ON mcp_instances (owner, name) WHERE deleted_at IS NULL;
CREATE INDEX mcp_instances_deleted ON mcp_instances (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX mcp_instances_node ON mcp_instances (node_id) WHERE deleted_at IS NULL;

CREATE TABLE mcp_specs (
    instance_id  uuid            NOT NULL REFERENCES mcp_instances (id) ON DELETE CASCADE, -- what it belongs to
    revision     integer         NOT NULL,                  -- 1, 2, 3 …; only `language`, `resolved`, `ran_at` and `failure` come later
    created_at   timestamptz     NOT NULL DEFAULT now(),    -- when this revision was asked for
    source_type  mcp_source_type NOT NULL,                  -- where the server comes from
    language     text            NOT NULL,                  -- python, node, go …; empty until the source was seen, if none was named
    command      jsonb,                                     -- {"command": "npx", "args": [], "cwd": null}; NULL: runs a source
    entry_point  text,                                      -- the file to run; NULL: `command` says it, or the first build finds it
    source       bytea,                                     -- the file itself; NULL: `command` or `origin` says where it comes from
    env          bytea           NOT NULL,                  -- AES-256-GCM of {"NAME": "value"}, bound to owner, instance and revision
    limits       jsonb           NOT NULL,                  -- {"memory_mb", "cpu_percent" (100 = one core), "disk_mb", "processes", "open_files", "call_timeout_s", "log_kb_s"}
    restart      jsonb           NOT NULL,                  -- {"mode", "burst", "window_s", "base_delay_s", "max_delay_s"}
    isolation    text            NOT NULL,                  -- what was asked for, not what is in force
    network      jsonb           NOT NULL DEFAULT '{}',     -- {"mode": "open", "hosts": []}; empty: open
    sessions     text            NOT NULL,                  -- whether legacy clients share one process
    cause        text            NOT NULL DEFAULT 'deploy', -- how it came to be: deploy, redeploy, patch, rollback to 3
    origin       jsonb,                                     -- {"url", "ref", "subdir", "sha256", "size_bytes"}; NULL: the source is in this row, or there is none
    dependencies jsonb           NOT NULL DEFAULT '[]',     -- packages to install beside what the source asks for, by name
    build_command text,                                     -- the owner's own build step; NULL: none
    resolved     jsonb,                                     -- what its first build found: {"language", "entry_point", "facts"}; NULL: not built yet
    ran_at       timestamptz,                               -- when it was first seen to run; NULL: it never completed a handshake
    failure      jsonb,                                     -- why it was not switched over to (an Evidence); NULL: nothing failed
    mounts       jsonb           NOT NULL DEFAULT '[]',     -- [{"source", "target", "writable"}]: folders of the host, and where it sees them

    PRIMARY KEY (instance_id, revision),
    CONSTRAINT spec_revision_from_one CHECK (revision >= 1),
    CONSTRAINT spec_runs_something CHECK (
        command IS NOT NULL OR entry_point IS NOT NULL OR source IS NOT NULL OR origin IS NOT NULL
    ),
    CONSTRAINT spec_isolation_is_known CHECK (isolation IN ('auto', 'process', 'confined', 'namespaced')),
    CONSTRAINT spec_sessions_is_known CHECK (sessions IN ('shared', 'per-session')),
    CONSTRAINT spec_dependencies_is_array CHECK (jsonb_typeof(dependencies) = 'array')
);
COMMENT ON TABLE mcp_specs IS 'What to run, as immutable revisions, the latest few of each instance; gone, secrets included, as soon as it is deleted';

CREATE TABLE mcp_incarnations (
    instance_id  uuid        NOT NULL REFERENCES mcp_instances (id) ON DELETE CASCADE, -- whose process it was
    number       integer     NOT NULL,                      -- 1 for the instance's first process
    pid          integer     NOT NULL,                      -- on the host it ran on
    started_at   timestamptz NOT NULL,                      -- when it was spawned
    ended_at     timestamptz,                               -- NULL: runs, or Corral died before it saw the end
    exit_code    integer,                                   -- NULL: runs, ended by a signal, or not known
    signal       text,                                      -- SIGKILL …; NULL: runs, exited by itself, or not known
    post_mortem  jsonb,                                     -- why it failed, with what was seen (an Evidence); NULL: it did not fail
    revision     integer,                                   -- the mcp_specs row that it ran, which may be gone; NULL: from before this was kept

    PRIMARY KEY (instance_id, number),
    CONSTRAINT end_has_time CHECK (ended_at IS NOT NULL OR (exit_code IS NULL AND signal IS NULL))
);
COMMENT ON TABLE mcp_incarnations IS 'Processes that instances have had';

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

CREATE TABLE mcp_idempotency (
    owner        text        NOT NULL REFERENCES mcp_users (name) ON DELETE CASCADE, -- whose request; keys of two owners never meet
    key          text        NOT NULL,                      -- the client's Idempotency-Key
    body_digest  bytea       NOT NULL,                      -- SHA-256 of the request's body: the same key with another body is refused
    instance_id  uuid        NOT NULL,                      -- what the first request made; may be deleted since
    created_at   timestamptz NOT NULL,                      -- valid for 24 hours from here

    PRIMARY KEY (owner, key),
    CONSTRAINT idempotency_key_has_length CHECK (length(key) BETWEEN 1 AND 255)
);
COMMENT ON TABLE mcp_idempotency IS 'Deploys that may be asked for again and must happen once';
CREATE INDEX mcp_idempotency_created_at ON mcp_idempotency (created_at);


-- History: append-only, one partition per day ----------------------------------
--
-- No foreign keys: a line must never be lost because its instance is gone.
-- `id` orders rows of the same instant as they were written.

CREATE SEQUENCE mcp_history_id;

CREATE TABLE mcp_instance_logs (
    instance_id  uuid        NOT NULL,                      -- which instance; may be deleted since
    log_level    text        NOT NULL,                      -- debug, info, warning, error …
    message      text        NOT NULL,                      -- one line, at most 16 KiB, then cut with a visible mark
    timestamp    timestamptz NOT NULL,                      -- when Corral read the line
    stream       mcp_stream  NOT NULL,                      -- where the line came from
    incarnation  integer     NOT NULL,                      -- which process printed it; 0: none (build, system)
    sanitized    boolean     NOT NULL DEFAULT false,        -- true: characters that Postgres refuses stand as escapes
    id           bigint      NOT NULL DEFAULT nextval('mcp_history_id') -- grows in the order of writing
) PARTITION BY RANGE (timestamp);
COMMENT ON TABLE mcp_instance_logs IS 'What instances print, and what Corral says about them';
CREATE INDEX mcp_instance_logs_instance ON mcp_instance_logs (instance_id, timestamp, id);

CREATE TABLE mcp_instance_metrics (
    instance_id   uuid             NOT NULL,                -- which instance; may be deleted since
    cpu_usage     double precision NOT NULL,                -- percent of one core, over the whole process tree; may exceed 100
    memory_usage  double precision NOT NULL,                -- MiB resident, over the whole process tree
    timestamp     timestamptz      NOT NULL,                -- when the look was taken
    processes     integer          NOT NULL,                -- processes in the tree
    open_files    integer,                                  -- of the process that has most; NULL: not read
    calls         bigint           NOT NULL,                -- calls answered since the last sample
    errors        bigint           NOT NULL,                -- of them, those that failed
    p50_ms        double precision,                         -- median latency of those calls; NULL: there was none
    p95_ms        double precision,                         -- 95th percentile; NULL: there was none
    disk_mb       double precision                          -- MiB in its folder that are its own, when last counted; NULL: not counted yet
) PARTITION BY RANGE (timestamp);
COMMENT ON TABLE mcp_instance_metrics IS 'Samples of resource use and calls';
CREATE INDEX mcp_instance_metrics_instance ON mcp_instance_metrics (instance_id, timestamp);

CREATE TABLE mcp_events (
    instance_id  uuid,                                      -- NULL: about no single instance
    owner        text,                                      -- who may see it; NULL: administrators only
    type         text        NOT NULL,                      -- status, deployed, deleted, post_mortem …
    data         jsonb       NOT NULL,                      -- depends on `type`; holds no secret
    timestamp    timestamptz NOT NULL,                      -- when it happened
    id           bigint      NOT NULL DEFAULT nextval('mcp_history_id') -- grows in the order of writing
) PARTITION BY RANGE (timestamp);
COMMENT ON TABLE mcp_events IS 'What happened to instances';
CREATE INDEX mcp_events_instance ON mcp_events (instance_id, timestamp, id);
CREATE INDEX mcp_events_owner ON mcp_events (owner, timestamp, id);     -- all of one owner's, newest first
CREATE INDEX mcp_events_type ON mcp_events (type, timestamp, id);       -- what is rare among everybody's: failures

CREATE TABLE mcp_audit (
    timestamp   timestamptz NOT NULL,                       -- when it was answered
    actor       text,                                       -- the user who asked; NULL: nobody that Corral knows
    credential  text,                                       -- the token's id, or `jwt:` and a digest; NULL: none that is valid
    address     text        NOT NULL,                       -- where the request came from; `elsewhere`: from several places
    action      text        NOT NULL,                       -- deploy, removeInstance, addToken … (the API's operation), or signIn when it was refused
    target      text        NOT NULL DEFAULT '',            -- what it was about: an instance's id, a token's id and name, a user's or a secret's name
    owner       text,                                       -- whose that is; NULL: nobody's, or nothing that the actor may see
    status      integer     NOT NULL,                       -- of the answer, as in HTTP; 499: the client left before there was one
    request_id  text        NOT NULL,                       -- of the answer's X-Request-Id; empty: it is about several, or a sign-in
    count       integer     NOT NULL DEFAULT 1,             -- refused requests that were alike, and too many for a row each
    id          bigint      NOT NULL DEFAULT nextval('mcp_history_id') -- grows in the order of writing
) PARTITION BY RANGE (timestamp);
COMMENT ON TABLE mcp_audit IS 'Who did what, and what came of it';
CREATE INDEX mcp_audit_order ON mcp_audit (timestamp, id);
CREATE INDEX mcp_audit_actor ON mcp_audit (actor, timestamp, id);

CREATE TABLE mcp_usage_days (
    owner           text             NOT NULL,          -- whose instances they were
    day             date             NOT NULL,          -- the day, in UTC
    cpu_s           double precision NOT NULL,          -- processor time of all processes, seconds of one core
    calls           bigint           NOT NULL,          -- calls that reached an instance
    errors          bigint           NOT NULL,          -- of them, those that failed
    bytes_in        bigint           NOT NULL,          -- bodies of requests, bytes
    bytes_out       bigint           NOT NULL,          -- bodies of answers, bytes
    peak_memory_mb  double precision NOT NULL,          -- the most that all instances used together, MiB resident

    PRIMARY KEY (owner, day),
    CONSTRAINT usage_not_negative CHECK (
        cpu_s >= 0 AND calls >= 0 AND errors >= 0 AND bytes_in >= 0 AND bytes_out >= 0 AND peak_memory_mb >= 0
    )
);
COMMENT ON TABLE mcp_usage_days IS 'What owners used, by day; every control plane adds what it has seen';
CREATE INDEX mcp_usage_days_day ON mcp_usage_days (day);  -- today, of everybody, at start


-- Changes that a control plane must hear of ------------------------------------
--
-- Payload: `<table>:<key>`. Only what is held in memory elsewhere is told; a state
-- written by the journal is not, nor is a token's `last_used_at`.

CREATE FUNCTION mcp_tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('mcp_changes', TG_ARGV[0] || ':' || (to_jsonb(coalesce(NEW, OLD)) ->> TG_ARGV[1]));
    RETURN NULL;
END $$;
COMMENT ON FUNCTION mcp_tell() IS 'NOTIFY mcp_changes, naming what changed';

CREATE TRIGGER mcp_users_tell AFTER INSERT OR DELETE OR UPDATE OF name, role, disabled, quotas ON mcp_users
    FOR EACH ROW EXECUTE FUNCTION mcp_tell('users', 'name');
CREATE TRIGGER mcp_tokens_tell AFTER INSERT OR DELETE OR UPDATE OF owner, role, digest, expires_at ON mcp_tokens
    FOR EACH ROW EXECUTE FUNCTION mcp_tell('tokens', 'id');
CREATE TRIGGER mcp_instances_tell AFTER INSERT OR DELETE OR UPDATE OF desired, revision, labels, deleted_at, node_id ON mcp_instances
    FOR EACH ROW EXECUTE FUNCTION mcp_tell('instances', 'id');

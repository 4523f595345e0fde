-- What each owner uses by day, and what an administrator allows one instead of the operator's settings.

ALTER TABLE mcp_users
    ADD COLUMN quotas jsonb NOT NULL DEFAULT '{}',      -- instead of the operator's settings: {"instances": 3, "calls_per_day": 0}; 0: no limit
    ADD CONSTRAINT user_quotas_is_object CHECK (jsonb_typeof(quotas) = 'object');

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

DROP TRIGGER mcp_users_tell ON mcp_users;
CREATE TRIGGER mcp_users_tell AFTER INSERT OR DELETE OR UPDATE OF name, role, disabled, quotas ON mcp_users
    FOR EACH ROW EXECUTE FUNCTION mcp_tell('users', 'name');

-- Secrets of their own, which environment variables name, so that a value is set once and changed in one place.

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

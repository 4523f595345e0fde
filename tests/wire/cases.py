"""Deploy bodies, good and bad: for the converter, the schemas and the API."""

from __future__ import annotations

from typing import Any

MEMORY = {
    "name": "memory-server",
    "source_type": "mcp_config",
    "mcp_config": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-memory"]},
}


def deploy(**changes: Any) -> dict[str, Any]:
    return {**MEMORY, **changes}


def config(**changes: Any) -> dict[str, Any]:
    return deploy(mcp_config={**MEMORY["mcp_config"], **changes})  # type: ignore[dict-item]


INVALID_DEPLOYS: list[tuple[Any, str, str]] = [
    ([], "", "expected an object, got a list"),
    (None, "", "expected an object, got null"),
    ("memory", "", "expected an object, got a string"),
    (7, "", "expected an object, got a number"),
    ({}, "/name", "is required"),
    ({}, "/source_type", "is required"),
    (deploy(name=5), "/name", "expected a string, got a number"),
    (deploy(name=None), "/name", "expected a string, got null"),
    (deploy(name=["a"]), "/name", "expected a string, got a list"),
    (deploy(name=""), "/name", "expected 1 to 63 letters"),
    (deploy(name="-a"), "/name", "with a letter or digit at both ends"),
    (deploy(name="a" * 64), "/name", "expected 1 to 63 letters"),
    (deploy(name="a\n"), "/name", "expected 1 to 63 letters"),
    (deploy(name="ünïcode"), "/name", "expected 1 to 63 letters"),
    (deploy(name="../etc"), "/name", "expected 1 to 63 letters"),
    (deploy(name="a\0b"), "/name", "must not contain a NUL character"),
    (deploy(source_type="docker"), "/source_type", "expected one of `mcp_config`, `git`"),
    (deploy(source_type=1), "/source_type", "got a number"),
    (deploy(source_type=["git"]), "/source_type", "got a list"),
    (deploy(mcp_config="npx"), "/mcp_config", "expected an object, got a string"),
    (deploy(mcp_config=[]), "/mcp_config", "expected an object, got a list"),
    (deploy(mcp_config={}), "/mcp_config/command", "is required"),
    (config(command=1), "/mcp_config/command", "expected a string, got a number"),
    (config(command=""), "/mcp_config/command", "must not be empty"),
    (config(command="x" * 4097), "/mcp_config/command", "has 4,097 characters, at most 4,096 are allowed"),
    (config(command="a\0"), "/mcp_config/command", "must not contain a NUL character"),
    (config(args="xy"), "/mcp_config/args", "expected a list, got a string"),
    (config(args={"0": "a"}), "/mcp_config/args", "expected a list, got an object"),
    (config(args=["a", 1]), "/mcp_config/args/1", "expected a string, got a number"),
    (config(args=["a", None]), "/mcp_config/args/1", "expected a string, got null"),
    (config(args=["a", "b\0"]), "/mcp_config/args/1", "must not contain a NUL character"),
    (config(args=["a", "b\ud800"]), "/mcp_config/args/1", "must not contain a lone surrogate"),
    (config(args=["a"] * 257), "/mcp_config/args", "has 257 items, at most 256 are allowed"),
    (config(args=["x" * 32_769]), "/mcp_config/args/0", "has 32,769 characters"),
    (config(env=["A=b"]), "/mcp_config/env", "expected an object, got a list"),
    (config(env={"A": 3}), "/mcp_config/env/A", "expected a string, got a number"),
    (config(env={"A": True}), "/mcp_config/env/A", "expected a string, got a boolean"),
    (config(env={"A=B": "x"}), "/mcp_config/env/A=B", "name: expected a letter or `_`"),
    (config(env={"": "x"}), "/mcp_config/env/", "name: expected a letter or `_`"),
    (config(env={"A/~B": "x"}), "/mcp_config/env/A~1~0B", "name: expected a letter or `_`"),
    (config(env={"A\0": "x"}), "/mcp_config/env", "a name in it must not contain a NUL character"),
    (config(env={f"A{i}": "x" for i in range(257)}), "/mcp_config/env", "has 257 members"),
    (config(cwd=""), "/mcp_config/cwd", "must not be empty"),
    (config(shell=True), "/mcp_config/shell", "unknown field `shell`"),
    (deploy(limits={"memory_mb": "64"}), "/limits/memory_mb", "expected a whole number, got a string"),
    (deploy(limits={"memory_mb": True}), "/limits/memory_mb", "expected a whole number, got a boolean"),
    (deploy(limits={"memory_mb": 64.0}), "/limits/memory_mb", "expected a whole number, got 64.0"),
    (deploy(limits={"memory_mb": 1}), "/limits/memory_mb", "must be at least 16"),
    (deploy(limits={"memory_mb": 10**30}), "/limits/memory_mb", "must be at most 1,048,576"),
    (deploy(limits={"call_timeout_s": 0}), "/limits/call_timeout_s", "must be greater than 0"),
    (deploy(limits={"call_timeout_s": 10**400}), "/limits/call_timeout_s", "must be a finite number"),
    (deploy(limits={"call_timeout_s": float("nan")}), "/limits/call_timeout_s", "must be a finite number"),
    (deploy(limits=None), "/limits", "expected an object, got null"),
    (deploy(restart={"mode": "sometimes"}), "/restart/mode", "expected one of `always`, `on-failure`, `never`"),
    (deploy(restart={"burst": 0}), "/restart/burst", "must be at least 1"),
    (deploy(mounts=[{"source": "/a", "target": "/b", "mode": "x"}]), "/mounts/0/mode", "expected one of `ro`, `rw`"),
    (deploy(sessions=False), "/sessions", "expected one of `shared`, `per-session`, got a boolean"),
    (deploy(labels={"a b": "c"}), "/labels/a b", "name: expected 1 to 63 letters"),
    (deploy(enviroment_vars={}), "/enviroment_vars", "did you mean `environment_vars`?"),
    (deploy(source_typ="git"), "/source_typ", "did you mean `source_type`?"),
    (deploy(zzz=1), "/zzz", "unknown field `zzz`"),
]

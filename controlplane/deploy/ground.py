"""The allow-listed environment that instances and builds start from; their own variables stand on it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path


def ground(
    environ: Mapping[str, str], passed: Iterable[str], *, path: str, home: Path, tmp: str, npm: Path, uv: Path
) -> dict[str, str]:
    """All that comes from Corral.

    Args:
        environ: The control plane's own environment.
        passed: Names of it that go through (CHILD_ENV_PASS).
        path: PATH.
        home: HOME.
        tmp: TMPDIR.
        npm: npm's cache.
        uv: uv's cache.
    """
    return {name: environ[name] for name in passed if name in environ} | {
        "PATH": path,
        "HOME": str(home),
        "USER": "corral",
        "LOGNAME": "corral",
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "TMPDIR": tmp,
        "npm_config_cache": str(npm),
        "npm_config_update_notifier": "false",
        "npm_config_fund": "false",
        "npm_config_audit": "false",
        "UV_CACHE_DIR": str(uv),
        "UV_NO_PROGRESS": "1",
        "UV_SYSTEM_CERTS": "1",  # the host's own trust, as pip and npm take it
    }

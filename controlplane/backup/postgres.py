"""Postgres's own tools: `pg_dump`, `pg_restore` and `psql`, from where the server's programs are, else from PATH.

The password goes by the environment: other users can read arguments.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

from controlplane.embedded.binaries import find_postgres

LIMIT_S = 4 * 3600
"""For one tool: minutes for the largest history that the settings allow."""
CONNECT_S = 10
DISOWN = """
DO $$ BEGIN
    IF to_regclass('mcp_nodes') IS NOT NULL THEN
        UPDATE mcp_instances SET node_id = NULL, epoch = epoch + 1 WHERE node_id IS NOT NULL;
        DELETE FROM mcp_nodes;
    END IF;
END $$
"""
"""In a copy nobody holds anything: the control planes that its leases are about never knew it."""


class ToolFailed(Exception):
    """A tool cannot be had, or failed; the message has its last words."""


def dump(url: str, into: Path) -> None:
    """All of a database as of one moment, while others use it.

    Raises:
        ToolFailed: it could not be had.
    """
    _run("pg_dump", "--format=custom", "--compress=1", "--no-owner", "--no-privileges", f"--file={into}", url=url)


def load(url: str, source: Path) -> None:
    """Fill an empty database, all or nothing.

    Raises:
        ToolFailed: it could not be filled.
    """
    options = ("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges")
    _run("pg_restore", *options, str(source), url=url)
    query(url, DISOWN)


def schema_version(url: str) -> int | None:
    """Of the schema in a database; None: it has none of ours."""
    if query(url, "SELECT to_regclass('mcp_schema')") == "":
        return None
    return int(query(url, "SELECT max(version) FROM mcp_schema"))


def query(url: str, statement: str) -> str:
    """What a statement answers, bare."""
    return _run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement, url=url).strip()


def split_password(url: str) -> tuple[str, str | None]:
    """An address without its password, and the password: before the host, or in the query, which counts if both are there."""
    parts = urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    user, colon, text = login.partition(":")
    bare = url.replace(f"//{parts.netloc}", f"//{user}{at}{host}", 1)
    named = [pair for pair in parts.query.split("&") if _names_password(pair)]
    if named:
        kept = "&".join(pair for pair in parts.query.split("&") if pair not in named)
        bare = bare.replace(f"?{parts.query}", f"?{kept}" if kept else "", 1)
        colon, text = "=", named[-1].partition("=")[2]
    return bare, unquote(text) if colon else None


def _names_password(pair: str) -> bool:
    return unquote(pair.partition("=")[0]) == "password"


def _run(program: str, *arguments: str, url: str) -> str:
    bare, password = split_password(url)
    environment = os.environ | {"PGCONNECT_TIMEOUT": str(CONNECT_S), "PGAPPNAME": "corral", "LC_ALL": "C"}
    if password is not None:
        environment["PGPASSWORD"] = password
    try:
        done = subprocess.run(
            [find(program), *arguments, f"--dbname={bare}", "--no-password"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=LIMIT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolFailed(f"{program} cannot be run: {error}") from error
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip()
        raise ToolFailed(f"{program} failed: {words[-2000:]}")
    return done.stdout.decode(errors="replace")


def find(program: str) -> str:
    """Beside the server's programs, else on PATH: one that is older than the server refuses it, and says so.

    Raises:
        ToolFailed: there is none.
    """
    folder = find_postgres()
    if folder is not None and os.access(folder / program, os.X_OK):
        return str(folder / program)
    found = shutil.which(program)
    if found is None:
        raise ToolFailed(
            f"{program} was not found: install the extra (pip install 'corral[embedded]'), or postgresql-client"
        )
    return found

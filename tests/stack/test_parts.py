"""The small programs of the stack's image, and what its seccomp profile lets through, without an engine."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.plane import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT_S = 30
POSTGRES_GROUP, REDIS_GROUP = 10002, 10003


def program(name: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run one of the image's programs as the image does."""
    command = [sys.executable, "-I", "-S", str(ROOT / "docker" / name), *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.needs("root")
def test_each_secret_is_made_once_for_those_who_need_it(tmp_path: Path) -> None:
    first = program("make_secrets.py", str(tmp_path))
    made = contents(tmp_path)
    second = program("make_secrets.py", str(tmp_path))

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert contents(tmp_path) == made
    assert not any(text.strip() in first.stdout for text in made.values())
    found = {path.name: (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) for path in tmp_path.iterdir()}
    own = (0o600, os.getegid())
    assert found == dict.fromkeys(("secret-key", "admin-token", "database-url", "redis-url", "redis-password"), own) | {
        "postgres-password": (0o640, POSTGRES_GROUP),
        "redis.conf": (0o640, REDIS_GROUP),
    }
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o711


@pytest.mark.needs("root")
def test_what_follows_from_a_password_says_the_same_after_it_was_changed(tmp_path: Path) -> None:
    program("make_secrets.py", str(tmp_path))
    (tmp_path / "postgres-password").write_text("another\n")
    (tmp_path / "redis-password").unlink()

    program("make_secrets.py", str(tmp_path))

    redis = (tmp_path / "redis-password").read_text().strip()
    assert (tmp_path / "database-url").read_text() == "postgresql://mcp_user:another@postgres:5432/mcp_saas\n"
    assert (tmp_path / "redis-url").read_text() == f"redis://:{redis}@redis:6379/0\n"
    assert (tmp_path / "redis.conf").read_text().startswith(f"requirepass {redis}\n")


def test_a_volume_that_is_not_there_ends_it_with_status_78_and_a_sentence(tmp_path: Path) -> None:
    ended = program("make_secrets.py", str(tmp_path / "none"))

    assert ended.returncode == 78
    assert ended.stderr.startswith(f"{tmp_path}/none: No such file or directory.")


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Somebody on a port who answers one request so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT_S)

        def serve() -> None:
            with listener.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(LIMIT_S)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", 0),
        (b"HTTP/1.1 200\r\n\r\n", 0),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", 1),
        (b"", 1),
    ],
)
def test_the_health_check_says_whether_requests_are_taken(answer: bytes, status: int) -> None:
    with answering(answer) as port:
        assert program("healthcheck.py", PORT=str(port)).returncode == status


def test_the_health_check_fails_where_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        ended = program("healthcheck.py", PORT=str(taken.getsockname()[1]))

    assert (ended.returncode, "refused" in ended.stdout) == (1, True)


NEVER = [
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_enter",
    "keyctl",
    "add_key",
    "request_key",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "pidfd_getfd",
    "kcmp",
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "kexec_file_load",
    "reboot",
    "swapon",
    "swapoff",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "fsopen",
    "fsmount",
    "setns",
    "open_by_handle_at",
    "settimeofday",
    "clock_settime",
    "iopl",
    "ioperm",
    "quotactl",
    "acct",
    "syslog",
    "chroot",
]


def rules() -> dict[str, list[Any]]:
    """What the profile allows: system call -> conditions on its arguments, of each rule."""
    profile = json.loads((ROOT / "docker/seccomp.json").read_text())
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    found: dict[str, list[Any]] = {}
    for rule in profile["syscalls"]:
        assert rule["action"] == "SCMP_ACT_ALLOW"
        for name in rule["names"]:
            found.setdefault(name, []).append(rule.get("args", []))
    return found


@pytest.mark.parametrize("name", NEVER)
def test_the_profile_lets_nobody_call(name: str) -> None:
    assert name not in rules()


def test_the_profile_lets_bubblewrap_make_a_sandbox() -> None:
    allowed = rules()

    assert all(allowed[name] == [[]] for name in ("unshare", "clone", "clone3", "mount", "umount2", "pivot_root"))
    assert allowed["socket"] == [[{"index": 0, "value": socket.AF_ALG, "op": "SCMP_CMP_LT"}]]

"""Corral as systemd runs it: what it is told and tells, by a stand-in for systemd; and the unit itself, as far as it can be tried."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from controlplane import systemd
from tests.e2e.plane import ROOT, STRONGEST, open_plane

if TYPE_CHECKING:
    from collections.abc import Callable

UNITS = ROOT / "systemd"
ACTIVATE = """
import os, sys
at, *command = sys.argv[1:]
os.dup2(int(at), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(command[0], command)
"""
"""What systemd does between fork and exec."""


def test_nothing_is_told_or_taken_without_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.tell(systemd.READY)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    systemd.tell(systemd.READY)
    environ = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a", "OTHER": "kept"}
    assert systemd.take_sockets(environ) == ()  # another process's
    assert environ == {"OTHER": "kept"}
    assert systemd.take_sockets(environ) == ()


def test_an_abstract_socket_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        name = f"corral-test-{os.getpid()}"
        notify.bind("\0" + name)
        notify.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        systemd.tell(systemd.READY, "STATUS=x")
        assert notify.recv(100) == b"READY=1\nSTATUS=x"


def test_it_tells_when_it_serves_and_stops_and_a_restart_refuses_nobody(figure: Callable[..., None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        at = listener.fileno()

        def launched_by(_folder: Path) -> tuple[str, ...]:
            return (sys.executable, "-c", ACTIVATE, str(at))

        with open_plane(launched_by=launched_by) as plane, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(plane.folder / "notify"))
            notify.settimeout(30)
            plane.passed_fds = (at,)
            plane.settings = {**plane.settings, "NOTIFY_SOCKET": str(plane.folder / "notify")}
            plane.start()
            assert plane.url == f"http://127.0.0.1:{listener.getsockname()[1]}"
            assert notify.recv(200).decode() == f"READY=1\nSTATUS=serves at {plane.url}"

            assert plane.stop() == 0
            assert notify.recv(200).decode() == "STOPPING=1"
            answers: list[Any] = []
            caller = threading.Thread(target=lambda: answers.append(httpx.get(f"{plane.url}/health", timeout=60)))
            began = time.monotonic()
            caller.start()
            plane.start()
            caller.join(60)
            figure("answered though it did not run, after", time.monotonic() - began, "s")
            assert [answer.status_code for answer in answers] == [200]


def lines(unit: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)


@pytest.mark.needs("systemd_analyze")
def test_the_units_are_well_formed(tmp_path: Path) -> None:
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/opt/corral/.venv/bin/corral", shutil.which("true") or "/bin/true")
        text = text.replace("/usr/sbin/nginx", shutil.which("true") or "/bin/true")
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *sorted(str(unit) for unit in tmp_path.iterdir())],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"SYSTEMD_LOG_LEVEL": "warning"},
    )
    ours = [line for line in done.stderr.splitlines() if "corral" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


def test_the_unit_leaves_the_stop_to_corral_and_an_instances_memory_limit_too() -> None:
    assert lines("corral.service", "KillMode") == ["mixed"]
    assert lines("corral.service", "OOMPolicy") == ["continue"]
    assert lines("corral.service", "Delegate") == ["yes"]
    assert lines("corral.service", "RestartPreventExitStatus") == ["78"]
    assert float(lines("corral.service", "TimeoutStopSec")[0]) > 10


@pytest.mark.needs("root")
def test_the_units_capabilities_are_enough_for_every_level_of_isolation(planes: Callable[..., Any]) -> None:
    kept = [word.removeprefix("CAP_").lower() for word in lines("corral.service", "CapabilityBoundingSet")[0].split()]
    bounds = ",".join(["-all", *(f"+{word}" for word in kept)])

    def launched_by(_folder: Path) -> tuple[str, ...]:
        return ("setpriv", "--no-new-privs", f"--bounding-set={bounds}")

    free, bound = planes(**STRONGEST), planes(launched_by=launched_by, **STRONGEST)
    assert bound.get("/isolation") == free.get("/isolation")
    assert bound.deploy("held")["isolation"] == free.deploy("held")["isolation"]
    assert bound.tool("held", "echo", text="x") == "x"

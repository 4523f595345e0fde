"""Which levels this host gives, by trying them, and what is said where one cannot be had."""

from __future__ import annotations

import errno
import json
import os
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from controlplane.spawn import landlock, probe, proctree, seccomp
from controlplane.spawn.confinement import LEVELS
from controlplane.spawn.probe import Verdict
from tests.e2e.plane import wait_until
from tests.plain_user import ROOT
from tests.spawn.children import PATH
from tests.spawn.restricted import run

if TYPE_CHECKING:
    from controlplane.spawn.confine import Host

Program = Callable[[str], str]
BROKEN = "#!/bin/sh\necho first >&2\necho '{words}' >&2\nexit 1\n"


def host(bwrap: str | None) -> Host:
    """This host, with another bubblewrap."""
    return probe.look(None)._replace(bwrap=bwrap)


def namespaced(bwrap: str | None) -> Verdict:
    return probe.levels(host(bwrap))[-1]


@pytest.fixture
def program(common_folder: Path) -> Callable[[str], str]:
    """Write a script in bubblewrap's place."""

    def write(text: str) -> str:
        path = common_folder / "bwrap"
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    return write


@pytest.mark.needs("landlock", "bubblewrap", "user_namespaces")
def test_this_host_gives_every_level() -> None:
    assert probe.levels(probe.look(None)) == tuple(Verdict(name, available=True) for name in LEVELS)


def test_a_level_that_is_not_there_says_what_is_missing_and_what_would_unlock_it() -> None:
    assert namespaced(None) == Verdict("namespaced", False, probe.NO_BWRAP, probe.UNLOCK_BWRAP)
    for verdict in probe.levels(host(None)):
        assert verdict.available or (verdict.why and verdict.unlock)


@pytest.mark.parametrize(
    ("words", "unlock"),
    [
        ("bwrap: Can not mount proc on /newroot/proc: Operation not permitted", "systempaths=unconfined"),
        (
            "bwrap: Creating new namespace failed: nesting depth or /proc/sys/user/max_*_namespaces exceeded (ENOSPC)",
            "user.max_user_namespaces",
        ),
        ("unshare: No space left on device", "user.max_user_namespaces"),
        ("bwrap: No permissions to create new namespace, likely because", "apparmor_restrict_unprivileged_userns"),
        ("bwrap: Creating new namespace failed: Operation not permitted", "user.max_user_namespaces"),
        ("bwrap: setting up uid map: Permission denied", "AppArmor profile"),
        ("bwrap: something else", probe.UNLOCK_OTHERWISE),
    ],
)
def test_where_bubblewrap_fails_its_last_words_are_the_reason(program: Program, words: str, unlock: str) -> None:
    verdict = namespaced(program(BROKEN.format(words=words)))
    assert (verdict.available, verdict.why) == (False, words)
    assert unlock in verdict.unlock


def test_where_bubblewrap_says_nothing_its_status_is_the_reason(program: Program) -> None:
    assert namespaced(program("#!/bin/sh\nexit 3\n")).why == "a trial ended with status 3"


def test_a_bubblewrap_that_cannot_run_is_a_failed_step(program: Program) -> None:
    assert namespaced(program("not a program")).why.startswith("exec: ")


def test_a_trial_that_hangs_is_ended(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TRIAL_LIMIT_S", 0.2)
    assert namespaced(program("#!/bin/sh\nexec sleep 60\n")).why == "a trial did not end within 0.2 s"


def found(*restrictions: Callable[[], None], before: tuple[str, ...] = ()) -> dict[str, Verdict]:
    """What the doctor's survey finds when it runs restricted: by level."""
    argv = [*before, sys.executable, "-m", "controlplane.deploy.hostlevels"]
    status, said = run(argv, *restrictions, uid=None, env={"PATH": PATH, "PYTHONPATH": str(ROOT)})
    assert status == 0, said
    rows = json.loads(said)["levels"]
    return {row["name"]: Verdict(**{key: "" if value is None else value for key, value in row.items()}) for row in rows}


def without_landlock() -> None:
    """As a kernel that was built without it: its first system call is unknown."""
    load, jump_unless_equal, answer = 0x20, 0x15, 0x06
    no_such_call, allowed = 0x0005_0000 | errno.ENOSYS, 0x7FFF_0000
    seccomp.install(
        struct.pack("=HBBI", load, 0, 0, 0)
        + struct.pack("=HBBI", jump_unless_equal, 0, 1, landlock.CREATE_RULESET)
        + struct.pack("=HBBI", answer, 0, 0, no_such_call)
        + struct.pack("=HBBI", answer, 0, 0, allowed)
    )


def many_rulesets() -> None:
    """As many layers as a kernel takes."""
    with suppress(OSError):
        for _ in range(100):
            landlock.restrict(landlock.Ruleset(readable=("/",), writable=("/",)))


def test_a_kernel_without_landlock_gives_no_confined_level() -> None:
    assert found(without_landlock)["confined"] == Verdict("confined", False, probe.NO_LANDLOCK, probe.UNLOCK_LANDLOCK)


@pytest.mark.needs("landlock")
def test_a_step_that_the_kernel_refuses_is_named() -> None:
    confined = found(many_rulesets)["confined"]
    assert not confined.available
    assert confined.why.startswith("landlock: ")


@pytest.mark.needs("user_namespaces", "bubblewrap")
def test_a_host_that_forbids_user_namespaces_gives_no_namespaced_level() -> None:
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$0" "$@"'
    verdict = found(before=("/usr/bin/unshare", "--user", "--map-root-user", "sh", "-c", forbid))["namespaced"]
    assert not verdict.available
    assert verdict.why
    assert verdict.unlock


def test_a_trial_leaves_no_descriptor_and_no_child() -> None:
    before, children = sorted(os.listdir("/proc/self/fd")), set(proctree.children())
    probe.levels(probe.look(None))
    assert sorted(os.listdir("/proc/self/fd")) == before
    wait_until(lambda: set(proctree.children()) <= children, 10, "the end of every child")

"""Servers that try to get out, at each level: what is promised is refused, and what is not promised is named.

The control plane runs as root, with a user for each instance; as an ordinary user, who is also that of all instances;
and in a plain container.
"""

from __future__ import annotations

import os
import re
import signal
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from controlplane.spawn.confinement import LEVELS
from controlplane.spawn.uids import open_uid_pool
from tests.e2e.container import open_contained_plane
from tests.e2e.escapes import ATTEMPTS, CONTAINED, HOST, USERS
from tests.e2e.plane import open_plane
from tests.e2e.scene import set_up
from tests.needs import met, skip_for, skip_unless

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.plane import Plane
    from tests.e2e.scene import Scene


@pytest.fixture(scope="module", params=USERS)
def user(request: pytest.FixtureRequest) -> str:
    """Whose control plane it is."""
    name: str = request.param
    if name.endswith(CONTAINED):
        skip_unless("docker", "root")
    elif name == "root":
        skip_unless("root")
    elif met("root"):
        skip_unless("mount_namespaces")
    return name


@contextmanager
def _started(user: str) -> Iterator[Plane]:
    with ExitStack() as stack:
        uid = None
        if user.startswith("plain_user") and met("root"):
            uid = stack.enter_context(open_uid_pool()).claim()
        opened = open_contained_plane(uid) if user.endswith(CONTAINED) else open_plane(uid=uid)
        yield stack.enter_context(opened).start()


@pytest.fixture(scope="module")
def scene(user: str) -> Iterator[Scene]:
    with _started(user) as plane, set_up(plane, contained=user.endswith(CONTAINED)) as scene:
        yield scene


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_level_refuses_what_it_promises_and_lets_through_what_it_does_not(
    scene: Scene, user: str, level: str, name: str
) -> None:
    if (why := scene.levels[level]) is not None:
        _skip_for(level, user, why)
    attempt = ATTEMPTS[name]
    came = scene.attempt(level, attempt.tool, attempt.arguments(scene))
    assert came["ok"] or came["errno"], came
    expected = attempt.expected(level, user)
    if expected != HOST:  # this depends on what this host's network and rights hold
        assert ("OPEN" if came["ok"] else came["errno"]) in expected, came["detail"]


def test_a_control_plane_that_is_made_to_abort_leaves_none_of_its_memory_behind(user: str) -> None:
    if user.endswith(CONTAINED):
        return  # its process there is the first, which no signal ends that it does not handle
    with _started(user) as plane:
        limits = Path(f"/proc/{plane.pid}/limits").read_text()
        assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
        os.kill(plane.pid, signal.SIGABRT)
        end = os.waitid(os.P_PID, plane.pid, os.WEXITED | os.WNOWAIT)
        assert end is not None
        assert (end.si_status, end.si_code) == (signal.SIGABRT, os.CLD_KILLED)  # and not CLD_DUMPED
        assert plane.wait() == -signal.SIGABRT


def _skip_for(level: str, user: str, why: str) -> None:
    """Where this machine cannot give a level, or no plain container can; else it is a failure that it is not given."""
    need = "landlock" if level == "confined" else "user_namespaces"
    skip_unless(need)
    if level == "namespaced" and user.endswith(CONTAINED):
        skip_for("nested_namespaces")
    pytest.fail(why)

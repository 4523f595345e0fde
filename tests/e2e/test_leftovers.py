"""What a kill in the middle of a removal leaves on the disk is gone after the next start."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx

from tests.e2e.plane import wait_until
from tests.e2e.test_shutdown import STUBBORN

if TYPE_CHECKING:
    from tests.e2e.plane import Plane


def test_a_removal_that_a_kill_cut_short_is_finished_at_the_next_start(plane: Plane) -> None:
    doomed = plane.deploy("doomed", STUBBORN)["instance_id"]  # it takes its time to stop
    kept = plane.deploy("kept")["instance_id"]
    folders = plane.home / "instances"
    unknown = folders / str(uuid4())
    unknown.mkdir()

    removal = threading.Thread(target=_remove, args=(plane, doomed))
    removal.start()
    wait_until(lambda: plane.instance(doomed)["status"] == "stopping", 30, "the removal")
    plane.kill()
    removal.join(30)
    assert (folders / doomed).exists()
    plane.start()

    wait_until(lambda: not (folders / doomed).exists(), 30, "the end of the folder")
    assert (folders / kept).exists()
    assert unknown.exists()
    wait_until(lambda: str(unknown) in plane.log, 30, "a word on the folder that nobody knows")


def _remove(plane: Plane, ref: str) -> None:
    with suppress(httpx.HTTPError):  # it is killed before it answers
        plane.request("DELETE", f"/instances/{ref}")

"""The processes that a pass reads: all that descend from here, and of the others a share."""

from __future__ import annotations

import os
import subprocess
import sys

from controlplane.spawn import proctree
from controlplane.supervise.census import AGAIN_EVERY, Census


def test_everything_below_is_read_in_each_pass_and_the_others_now_and_then() -> None:
    census = Census()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        census.take()
        looks = [census.take() for _ in range(AGAIN_EVERY)]
        child.kill()
    assert all(child.pid in look and os.getpid() in look for look in looks)
    assert sum(os.getppid() in look for look in looks) == 1


def test_a_new_process_is_found_in_the_next_pass_though_its_parent_is_new_too() -> None:
    census = Census()
    census.take()
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()'], stdin=0).wait()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as parent:
        for _ in range(10_000):
            found = census.take()
            below = [pid for pid, proc in found.items() if proc.ppid == parent.pid]
            if below:
                break
        assert below
        assert below[0] in census.take()
        parent.communicate(b"\n", timeout=30)
    assert below[0] not in census.take()


def test_one_whose_parent_has_ended_while_the_pass_went_on_is_read_again_in_the_next() -> None:
    census = Census()
    mine = proctree.look(os.getpid())
    assert mine is not None
    ended, stranger = 2**22 + 1, 2**22 + 2
    found = {
        os.getpid(): mine,
        10: mine._replace(ppid=ended),
        11: mine._replace(ppid=stranger),
        12: mine._replace(ppid=0),
    }
    assert census._not_below(found, {stranger}) == {11, 12}

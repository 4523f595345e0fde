"""Do something as another user, in a child of the test process that has everything imported already."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Callable


def in_a_child(work: Callable[[], None], *, uid: int) -> None:
    """Do `work` in a forked child as a plain user; a failure there is one here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: worker threads; the child uses none of their locks
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "see the traceback on standard error"

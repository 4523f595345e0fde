"""A sandbox as the spawner makes one, as far as its network goes: `enter.py REPORT_FD UID LOOPBACK PROGRAM ARGUMENT…`.

UID 0 stays root until the namespace is made, and is `nobody` then; any other is a plain user who needs a user namespace.
LOOPBACK is a JSON list of addresses with ports, or `none` for a namespace without a gate.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

from controlplane.spawn import linux, netns

NOBODY = 65534


def become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def main() -> None:
    report_fd, uid, loopback = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    if uid and uid != os.getuid():
        become(uid)
    if uid:
        gid = os.getgid()
        linux.unshare(linux.CLONE_NEWUSER)
        linux.map_own_user(uid, gid, uid, gid)
    if loopback == "none":
        netns.isolate()
    else:
        netns.open_gate(report_fd, [(host, port) for host, port in json.loads(loopback)])
    os.close(report_fd)
    linux.drop_bounding_set()
    if not uid:
        become(NOBODY)
    linux.drop_capabilities()
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    os.execv(sys.argv[4], sys.argv[4:])


if __name__ == "__main__":
    main()

"""What the control plane and the egress process say to each other, on one SOCK_SEQPACKET pair; messages as in `spawn.messages`.

Control plane to process: `admit` with three descriptors (the policy in a memfd, the listener, the DNS socket), and
`drop`. Back: `refused` (key, host, port, reason), and `traffic` (key, bytes in and out so far).
"""

from __future__ import annotations

import json
import os

import attrs

from controlplane.egress.policy import Policy


def to_memfd(policy: Policy) -> int:
    """Write a policy, which may be longer than a packet, to an anonymous file in memory; the caller closes it."""
    fd = os.memfd_create("policy", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(json.dumps(attrs.asdict(policy)).encode())
    except BaseException:
        os.close(fd)
        raise
    return fd


def from_memfd(fd: int) -> Policy:
    """Read a policy back; the descriptor stays open."""
    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        document = json.loads(file.read())
    return Policy(document["mode"], tuple(document["hosts"]), tuple(document["allow_private"]))

"""What the control plane and the spawner say to each other, and how.

A message is one small JSON object in one SOCK_SEQPACKET packet. What has no
size limit (arguments, environment) travels as an `Order` in a memfd, passed by
SCM_RIGHTS together with the child's three standard streams.

Control plane to spawner: `spawn` (with four or five descriptors), `signal`, `kill`,
`fence`, `ping`. Spawner to control plane: `hello`, then per job `spawned` or `failed`,
`exit`, `gone`; `stats` whenever a figure changed; and `pong`.

Standard library only: the spawner runs without site-packages.
"""

from __future__ import annotations

import json
import os
import socket
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from controlplane.spawn.confinement import Confinement, from_document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_PACKET_BYTES = 65536
"""Far above any message: what could grow is in the memfd, and texts and pid lists are cut short."""
ORDER_FDS = 4
"""The memfd of the order, then standard input, output and error."""
GATE_FDS = ORDER_FDS + 1
"""And, for a job whose network is gated, the socket by which its own sockets leave (`netns`)."""
UNFENCED_KIND = "service"
"""Jobs of this kind live on when the fence falls: they are Corral's own, and no other control plane runs them."""
OWNER_VARIABLE = "CORRAL_OWNER"
JOB_VARIABLE = "CORRAL_JOB"


class Order(NamedTuple):
    """One process to start. Fields are those of `client.JobSpec`."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    kind: str
    uid: int | None
    rlimits: dict[str, int]
    private_tmp: str | None
    stop_signal: int
    userns_root: bool
    confinement: Confinement


def fence_clock() -> float:
    """What a fence is told by, in seconds: one clock for all processes of the host, which a suspended host's goes on."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def to_memfd(order: Order) -> int:
    """Write an order to an anonymous file in memory; the caller closes the descriptor."""
    fd = os.memfd_create("order", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(json.dumps(order._asdict()).encode())
    except BaseException:
        os.close(fd)
        raise
    return fd


def from_memfd(fd: int) -> Order:
    """Read an order back; the descriptor stays open."""
    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        document = json.loads(file.read())
    return Order(**document | {"confinement": from_document(document["confinement"])})


def encode(message: Mapping[str, Any]) -> bytes:
    """One message as one packet."""
    return json.dumps(message).encode()


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """One message and its descriptors; None at the end of the stream.

    Raises:
        BlockingIOError: the socket is non-blocking and nothing is there.
    """
    data, fds, _flags, _address = socket.recv_fds(sock, MAX_PACKET_BYTES, GATE_FDS, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    return json.loads(data), fds


def send(sock: socket.socket, packet: bytes, fds: Sequence[int] = ()) -> None:
    """Send one packet whole.

    Raises:
        BlockingIOError: there is no room now.
    """
    if fds:
        socket.send_fds(sock, [packet], list(fds))
    else:
        sock.send(packet)

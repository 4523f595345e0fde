"""Lists that a modern client gets without the server: it cannot be asked now, or has said that it need not be.

While an instance restarts its lists are answered from the catalogue, so that
clients keep their tools. For legacy clients there is nothing like it: a session
ends with its server's process, and what a client lists after that, it lists in
a new session, whose `initialize` waits for the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from controlplane.protocol.handshake import Era, ProtocolFacts
from controlplane.protocol.modern_to_legacy import modern_member
from controlplane.supervise import calls
from controlplane.supervise.listpages import SECTIONS

if TYPE_CHECKING:
    from controlplane.protocol.headers import ModernRequest
    from controlplane.supervise.lane import Lane
    from controlplane.supervise.runner import Runner

_UNHEARD = ProtocolFacts(era=Era.LEGACY)
"""Of a server that has not come up yet in this life of the control plane."""


def known(runner: Runner, request: ModernRequest) -> bytes | None:
    """The answer's raw member, None where the server has to be asked."""
    if request.method not in SECTIONS:
        return None
    if runner.serving:  # only a server of the modern era says how long an answer holds
        return runner.catalogue.cached(request.method, request.params, trio.current_time())
    if not calls.is_coming_back(runner):
        return None
    member = runner.catalogue.answer(request.method, request.params)
    return None if member is None else modern_member(request.method, member, runner.protocol or _UNHEARD)


def note(runner: Runner, lane: Lane, method: str, params: bytes | None, member: bytes) -> None:
    """Let the catalogue have an answer that passes by; other processes than the primary may list something else."""
    if method in SECTIONS and lane is runner.lane:
        runner.catalogue.fold(method, params, member)

"""HTTP sessions of legacy clients: who may use one, for how long, and how many there are.

A session is bound to the user and the instance that it was made for. For
everybody else, and after it has ended, it does not exist: one answer for all,
404, on which a client initializes anew (MCP 2025-11-25, session management).
Its id is no credential, but 192 random bits all the same.

A session ends when its client deletes it, when nothing happened on it for
`IDLE_S` (a connected reader or a call in flight holds that up), when its
instance ends, and to make room for a newer one of the same user: SDK clients
that crash or reconnect never delete theirs, and one such client must not lock
its user out for half an hour. One that was used within `SPARED_S` is never
taken, so that clients at the cap do not end each other's in turns.
"""

from __future__ import annotations

import secrets
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from attrs import define, field, frozen

from controlplane.errors import Overloaded, QuotaExceeded
from controlplane.protocol.versions import primes_streams
from controlplane.web.mcp.client_session import ClientSession
from controlplane.web.mcp.pool import Pool
from controlplane.web.mcp.streams import Ended, Framing, relay

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from controlplane.model import Principal
    from controlplane.web.mcp.outlet import Headers, Outlet

__all__ = ["ClientSession", "NoSession", "SessionStatistics", "SessionTable"]

SESSIONS_MAX = 10_000
"""In all."""
USER_SESSIONS_MAX = 1_000
IDLE_S = 30 * 60.0
SPARED_S = 60.0
"""A session that was used this recently is not ended to make room."""
BUFFERED_MAX_BYTES = 128 * 2**20
"""Events of all sessions together, for their readers and for resumes: some of the largest answers (16 MiB) at once."""
ID_BYTES = 24


class NoSession(Exception):
    """There is no such session for this client; to be answered with 404, on which it initializes anew."""

    def __init__(self) -> None:
        super().__init__("There is no such session, or it is over: initialize a new one.")


@frozen(kw_only=True)
class SessionStatistics:
    """What there is now, and what was cut so far."""

    sessions: int
    readers: int
    buffered_bytes: int
    expired: int
    evicted: int
    """Ended to make room for a newer one of the same user."""
    lagged: int
    lost_events: int


@define(eq=False)
class SessionTable:
    """All sessions.

    Args:
        on_end: Told of every session that has ended, with who still waits for an answer of its client. Must not raise.
        clock: Seconds.
        max_bytes: Bound of all events that are kept or queued.
    """

    on_end: Callable[[ClientSession, list[Any]], None]
    clock: Callable[[], float] = monotonic
    max_bytes: int = BUFFERED_MAX_BYTES
    pool: Pool = field(init=False, repr=False)
    _sessions: dict[str, ClientSession] = field(factory=dict, init=False, repr=False)
    """By id."""
    _by_user: dict[str, dict[str, ClientSession]] = field(factory=dict, init=False, repr=False)
    _expired: int = field(default=0, init=False)
    _evicted: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.pool = Pool(self.max_bytes, self.clock)

    def __len__(self) -> int:
        return len(self._sessions)

    def create(
        self,
        principal: Principal,
        instance_id: UUID,
        *,
        version: str,
        capabilities_raw: bytes = b"{}",
        client_info_raw: bytes = b"{}",
        messages_path: str | None = None,
    ) -> ClientSession:
        """Make a session for whoever this is.

        Args:
            principal: Its owner is who may use the session.
            instance_id: The instance that it is with.
            version: The protocol version agreed on.
            capabilities_raw: The client's, from `initialize`.
            client_info_raw: The client's, from `initialize`.
            messages_path: For HTTP+SSE (2024-11-05): the path to post to, percent-encoded; `?session=…` is added.

        Raises:
            QuotaExceeded: the user has too many sessions, all in use.
            Overloaded: there are too many.
        """
        now = self.clock()
        self._make_room(principal.owner, now)
        session_id = secrets.token_urlsafe(ID_BYTES)
        endpoint = None if messages_path is None else f"{messages_path}?session={quote(session_id)}".encode("ascii")
        session = ClientSession(
            id=session_id,
            user=principal.owner,
            instance_id=instance_id,
            version=version,
            capabilities_raw=capabilities_raw,
            client_info_raw=client_info_raw,
            touched=now,
            pool=self.pool,
            framing=Framing(primes=primes_streams(version), endpoint=endpoint),
            clock=self.clock,
        )
        self._sessions[session.id] = session
        self._by_user.setdefault(session.user, {})[session.id] = session
        return session

    def find(self, session_id: str, principal: Principal, instance_id: UUID) -> ClientSession:
        """The session that a request names; the request counts as a touch.

        Raises:
            NoSession: unknown, over, or another user's or instance's: nobody learns which.
        """
        session = self._sessions.get(session_id)
        if session is None or (session.user, session.instance_id) != (principal.owner, instance_id):
            raise NoSession
        now = self.clock()
        if self._is_stale(session, now):
            self._expired += 1
            self.end(session)
            raise NoSession
        session.touched = now
        return session

    def all(self) -> list[ClientSession]:
        """Every session there is."""
        return list(self._sessions.values())

    def count_of(self, user: str) -> int:
        """How many sessions a user has."""
        return len(self._by_user.get(user, {}))

    def end(self, session: ClientSession) -> None:
        """End one session; idempotent."""
        if self._sessions.pop(session.id, None) is None:
            return
        _discard(self._by_user, session.user, session.id)
        session.close()
        self.on_end(session, session.questions.close())

    def close(self) -> None:
        """End all sessions."""
        for session in list(self._sessions.values()):
            self.end(session)

    def expire(self, now: float) -> None:
        """End the sessions that have been idle for too long, and forget streams that nobody will resume."""
        self.pool.expire(now)
        for session in [session for session in self._sessions.values() if self._is_stale(session, now)]:
            self._expired += 1
            self.end(session)

    async def relay_until_left(self, session: ClientSession, outlet: Outlet, *, headers: Headers = ()) -> Ended:
        """Answer `GET /mcp/{ref}/sse` (2024-11-05): a session of HTTP+SSE ends with the connection that made it."""
        try:
            return await relay(session.standalone, 0, outlet, headers=headers)
        finally:
            self.end(session)

    def statistics(self) -> SessionStatistics:
        return SessionStatistics(
            sessions=len(self._sessions),
            readers=self.pool.readers,
            buffered_bytes=self.pool.held_bytes,
            expired=self._expired,
            evicted=self._evicted,
            lagged=self.pool.lagged,
            lost_events=self.pool.lost,
        )

    def _is_stale(self, session: ClientSession, now: float) -> bool:
        return now - session.touched >= IDLE_S and not session.busy

    def _has_room(self, user: str) -> bool:
        return self.count_of(user) < USER_SESSIONS_MAX and len(self._sessions) < SESSIONS_MAX

    def _make_room(self, user: str, now: float) -> None:
        """Let one more session of this user in: at a cap it takes the place of the one it has left idle for longest."""
        if self._has_room(user):
            return
        self.expire(now)
        if self._has_room(user):
            return
        theirs = self._by_user.get(user, {})
        idle = (session for session in theirs.values() if not session.busy)
        idlest = min(idle, key=lambda session: session.touched, default=None)
        if idlest is not None and now - idlest.touched >= SPARED_S:
            self._evicted += 1
            self.end(idlest)
        elif len(theirs) >= USER_SESSIONS_MAX:
            raise QuotaExceeded(
                f"the quota of {USER_SESSIONS_MAX} MCP sessions is used up",
                hint="end a session with DELETE, or wait until one has been idle for a minute",
                evidence={"quota": "mcp_sessions", "limit": USER_SESSIONS_MAX, "used": len(theirs)},
            )
        else:
            raise Overloaded("Too many MCP sessions are open.", retry_after_s=SPARED_S)


def _discard(index: dict[Any, dict[str, ClientSession]], key: Any, session_id: str) -> None:
    del index[key][session_id]
    if not index[key]:
        del index[key]

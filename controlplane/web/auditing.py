"""Who did what: one row of the audit log for each request that changes something, once it is answered.

A row is made of what the guards and the route know (who, from where, which
operation, what it is about) and the answer's status; never of a body. It goes to
the journal, which keeps it while the database is away, and as one line to the log
`corral.audit`, whose record carries the same members.

Calls of instances have no rows: there are too many, and `usage` and the `call`
events tell of them. Of wrong tokens there are rows, whichever route they came to.
What anybody can repeat without end is thinned: see `Refusal`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING

import attrs
from attrs import define, field, frozen

from controlplane.core.secretrefs import is_name
from controlplane.core.thinning import Thinning
from controlplane.errors import NotFound
from controlplane.store.values import AuditRow
from controlplane.wire.redact import redact_text
from controlplane.wire.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from controlplane.model import Principal
    from controlplane.store.journal import Journal
    from controlplane.supervise.supervisor import Supervisor

log = logging.getLogger("corral.audit")

SIGN_IN = "signIn"
"""The action of a request with a wrong token; operations of the API have other names."""
WINDOW_S = 60.0
"""How long refusals that are alike are counted together."""
REFUSALS_MAX = 30
"""Rows of one caller's refusals of one kind in a window, before they are counted: a person's mistakes fit in."""
CALLERS_MAX = 256
"""Kinds of refusals that are counted apart."""
ADDRESSES_MAX = 16
"""Addresses whose wrong tokens are counted apart: two rows of each a minute are 46,080 a day, about 10 MiB."""
ELSEWHERE = "elsewhere"
"""The address of what came from more places than are counted apart."""
LEFT = 499
"""The status when the client left before there was an answer; what it asked for may have been done."""
TARGET_MAX_CHARS = 128
ADDRESS_MAX_CHARS = 64


@frozen(kw_only=True)
class Refusal:
    """What refused requests have in common that are counted together, once there are too many of them."""

    action: str
    status: int
    address: str
    actor: str | None = None
    credential: str | None = None


@define(eq=False)
class AuditLog:
    """Makes the rows; nothing here waits. `clock` is monotonic seconds."""

    journal: Journal
    clock: Callable[[], float] = monotonic
    _sign_ins: Thinning[Refusal] = field(init=False)
    _refusals: Thinning[Refusal] = field(init=False)

    def __attrs_post_init__(self) -> None:
        sign_in = Refusal(action=SIGN_IN, status=401, address=ELSEWHERE)
        self._sign_ins = Thinning(1, WINDOW_S, ADDRESSES_MAX, sign_in)
        refused = Refusal(action="", status=403, address=ELSEWHERE)
        self._refusals = Thinning(REFUSALS_MAX, WINDOW_S, CALLERS_MAX, refused)

    def note(self, row: AuditRow) -> None:
        """Keep one row, unless the caller is refused so often that this one is only counted."""
        if row.status >= 400 and row.status != LEFT:
            self.sweep()
            alike = Refusal(
                action=row.action,
                status=row.status,
                address=row.address,
                actor=row.actor,
                credential=row.credential,
            )
            if not self._refusals.tells(alike, self.clock()):
                return
        self._keep(row)

    def wrong_token(self, address: str) -> None:
        """Somebody sent a token that is unknown, expired or revoked; the first of an address in a minute is a row."""
        self.sweep()
        alike = Refusal(action=SIGN_IN, status=401, address=address[:ADDRESS_MAX_CHARS])
        if self._sign_ins.tells(alike, self.clock()):
            self._keep(_row_of(alike, 1))

    def sweep(self, *, everything: bool = False) -> None:
        """Keep the counts whose minute is over; at the end, all of them."""
        now = float("inf") if everything else self.clock()
        for thinning in (self._sign_ins, self._refusals):
            for alike, count in thinning.due(now):
                self._keep(_row_of(alike, count))

    def _keep(self, row: AuditRow) -> None:
        self.journal.audit(row)
        members = attrs.asdict(row, filter=lambda member, _: member.name != "at")
        who, what = row.actor or "somebody", " ".join(part for part in (row.action, row.target) if part)
        times = f" ({row.count} times)" if row.count > 1 else ""
        log.info("%s from %s: %s: %d%s", who, row.address, what, row.status, times, extra=members)


def _row_of(alike: Refusal, count: int) -> AuditRow:
    """A row that stands for `count` refusals."""
    return AuditRow(
        at=datetime.now(UTC), target="", owner=None, request_id="", count=count, **attrs.asdict(alike, recurse=False)
    )


@define(eq=False)
class Entry:
    """What the audit log will say of one request; nothing, as long as nobody has begun it."""

    _log: AuditLog
    _request_id: str
    action: str = field(default="", init=False)
    actor: str | None = field(default=None, init=False)
    credential: str | None = field(default=None, init=False)
    address: str = field(default="", init=False)
    target: str = field(default="", init=False)
    owner: str | None = field(default=None, init=False)
    has_outcome: bool = field(default=False, init=False)
    """The answer is a stream that ends with the outcome: its own status says nothing yet."""

    def begin(self, action: str, caller: Principal, address: str) -> None:
        """It is to have a row: `caller` asked for the operation `action`."""
        self.action, self.actor, self.credential = action, caller.owner, caller.token_id
        self.address = address[:ADDRESS_MAX_CHARS]

    def about(self, target: str, owner: str | None) -> None:
        """Say what the request is about: an id, or a name as it was sent; and whose that is, if the caller may know."""
        self.target, self.owner = _shown(target), owner

    def close(self, status: int) -> None:
        """The answer is known: keep the row, once."""
        action, self.action = self.action, ""
        if action:
            self._log.note(
                AuditRow(
                    at=datetime.now(UTC),
                    actor=self.actor,
                    credential=self.credential,
                    address=self.address,
                    action=action,
                    target=self.target,
                    owner=self.owner,
                    status=status,
                    request_id=self._request_id,
                )
            )


def target_of(
    supervisor: Supervisor, caller: Principal, template: str, path: Mapping[str, str]
) -> tuple[str, str | None]:
    """What a path is about, and whose: an instance's id, or what was sent where it is none that the caller sees.

    Args:
        supervisor: Knows the instances.
        caller: Who asked.
        template: The route's path; below `/secrets/` only what can be a name is kept, as it may be a value by mistake.
        path: What stands in it for each placeholder.
    """
    if "id" in path:
        try:
            instance = supervisor.find(caller, path["id"]).instance
        except NotFound:
            return path["id"], None
        return str(instance.id), instance.owner
    named = next(iter(path.values()), "")
    return "" if template.startswith("/secrets/") and not is_name(named) else named, None


def token_target(token_id: UUID, name: str) -> str:
    """A token as the target of a row: with its name, which nobody could find out once it is revoked."""
    return f"{token_id} {name}"


def _shown(target: str) -> str:
    """As people may read it: no secret that has the shape of one, no control characters, not endless."""
    return clean(redact_text(target[: 2 * TARGET_MAX_CHARS]))[:TARGET_MAX_CHARS]

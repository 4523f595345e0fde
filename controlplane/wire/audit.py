"""What the API answers about who did what."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from controlplane.wire.answers import NEXT_CURSOR, TIME
from controlplane.wire.fields import bounded

StatusClass = Literal["2xx", "3xx", "4xx", "5xx"]


@frozen(kw_only=True)
class AuditOut:
    """One thing that somebody did, or tried to do."""

    timestamp: str = bounded(**TIME, description="When it was answered.")
    actor: str | None = bounded(description="Who asked; null: nobody that is known here, a wrong token.")
    credential: str | None = bounded(
        description="The id of the token, or `jwt:` and a part of the digest; null: none that is valid."
    )
    address: str = bounded(
        description="Where it came from; `elsewhere`: from more places than are counted apart.", examples=["192.0.2.7"]
    )
    action: str = bounded(
        description="The operation, by its name in this document; `signIn` for a wrong token.", examples=["patchUser"]
    )
    target: str = bounded(
        description=(
            "What it was about: the id of an instance or a token, the name of a user or a secret, or what was sent where it"
            " is nothing that the actor sees; empty: nothing by itself."
        )
    )
    name: str | None = bounded(
        None, description="The instance's, where `target` is one that is not forgotten; the token's."
    )
    owner: str | None = bounded(None, description="Whose the target is; null: nobody's, or not the actor's to know.")
    status: int = bounded(
        description="Of the answer; 499: the client left before there was one, and it may have been done.",
        examples=[200],
    )
    request_id: str = bounded(description="`X-Request-Id` of the answer; empty: of several, or of a wrong token.")
    count: int = bounded(1, description="How many refused requests this row stands for.")


@frozen(kw_only=True)
class AuditLogOut:
    """A page of the audit log, newest first."""

    audit: list[AuditOut]
    next_cursor: str | None = bounded(None, description=NEXT_CURSOR)

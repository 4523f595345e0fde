"""What the API takes and answers about secrets: names and times, never a value."""

from __future__ import annotations

from attrs import frozen

from controlplane.wire.answers import NEXT_CURSOR, TIME
from controlplane.wire.fields import bounded, omitted_when_none

VALUE_MAX_BYTES = 64 * 1024
"""Of one secret, in UTF-8: a private key with its whole chain is a tenth of that, and an environment takes 96 KiB."""


@frozen(kw_only=True)
class SecretIn:
    """The value of a secret."""

    value: str = bounded(
        maxLength=VALUE_MAX_BYTES,
        description="Any text without NUL, at least 4 characters, at most 64 KiB. No answer ever has it.",
    )


@frozen(kw_only=True)
class SecretOut:
    """A secret's record."""

    name: str = bounded(description="What `${secret:NAME}` says in an environment.")
    owner: str = bounded(description="Whose instances may name it.")
    created_at: str = bounded(**TIME)
    updated_at: str = bounded(**TIME)
    used_by: list[str] = bounded([], description="Instances whose environment names it.")


@frozen(kw_only=True)
class SecretSetOut(SecretOut):
    """A secret whose value was just set."""

    in_force_after_restart: list[str] = bounded(
        [], description="Instances that run with the value before, until they are restarted."
    )


@frozen(kw_only=True)
class SecretsOut:
    """A page of secrets, by name."""

    secrets: list[SecretOut]
    next_cursor: str | None = bounded(None, description=NEXT_CURSOR)


@frozen(kw_only=True)
class RotateKeyIn:
    """Nothing: what is to be done needs no word."""


@frozen(kw_only=True)
class KeyRotatedOut:
    """Which key replaced which. An id is derived from its key, and tells nothing of it."""

    key_id: str = bounded(description="In force from now on.")
    previous_key_id: str = bounded(description="Nothing is encrypted with it any more.")
    boxes: int = bounded(description="Encrypted values that were closed anew.")
    away: list[str] | None = omitted_when_none(
        description=(
            "Addresses of other control planes on the database whose leases have run out. They know the old key: stop what"
            " still runs of them, and give them the new one before they start."
        )
    )

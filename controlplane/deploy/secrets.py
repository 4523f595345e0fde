"""Secrets that an environment names, filled in at each launch.

A Spec keeps the reference, never the value, so a new value is in force from the next
start on, and nothing but the launch knows it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import trio
from attrs import field, frozen

from controlplane.core.secretrefs import BadReference, filled_in, names_in_env
from controlplane.deploy.references import HINT
from controlplane.errors import InvalidRequest, SecretMissing, StorageUnavailable
from controlplane.secretbox import SecretUnreadable

AWAY_LIMIT_S = 30.0
"""How long a launch waits for a database that is away: a restart of Postgres takes a few seconds."""
AWAY_PAUSE_S = 0.5
MAX_ENVIRONMENT_BYTES = 96 * 1024
"""Of the owner's variables with all secrets filled in: what a deploy may ask for, secrets or not."""


class SecretSource(Protocol):
    """Where values are: the store."""

    async def secret_values(self, owner: str, names: Collection[str]) -> dict[str, str]:
        """The values of those that exist."""
        ...


@frozen(kw_only=True)
class Resolved:
    """An owner's variables as a process gets them, and the secrets that went into them, by name."""

    env: Mapping[str, str] = field(repr=False)
    secrets: Mapping[str, str] = field(repr=False)


async def resolve(env: Mapping[str, str], owner: str, source: SecretSource | None) -> Resolved:
    """Fill in the secrets that a Spec's environment names.

    Args:
        source: None: there are no secrets here.

    Raises:
        SecretMissing: one is not there (any more).
        InvalidRequest: with its secrets it is too large for a process, or a reference cannot be read.
        StorageUnavailable: the database stayed away.
    """
    names = names_in_env(env)
    secrets = await _values(owner, names, source) if names and source is not None else {}
    if missing := sorted(names - secrets.keys()):
        one = missing[0]
        what = f"the secret {one} is" if len(missing) == 1 else f"the secrets {', '.join(missing)} are"
        raise SecretMissing(f"{what} not set, and the environment names it", hint=f"{HINT.format(one)}, then start it")
    try:
        filled = {name: filled_in(value, secrets) for name, value in env.items()}
    except BadReference as error:  # from before references were looked at
        raise InvalidRequest(str(error)) from None
    size = sum(len(name) + len(value.encode("utf-8", "surrogatepass")) + 2 for name, value in filled.items())
    if names and size > MAX_ENVIRONMENT_BYTES:
        raise InvalidRequest(
            f"the environment is {size} bytes with its secrets filled in; at most {MAX_ENVIRONMENT_BYTES}"
        )
    return Resolved(env=filled, secrets=secrets)


async def _values(owner: str, names: Collection[str], source: SecretSource) -> dict[str, str]:
    deadline = trio.current_time() + AWAY_LIMIT_S
    while True:
        try:
            return await source.secret_values(owner, names)
        except StorageUnavailable:
            if trio.current_time() > deadline:
                raise
        except SecretUnreadable as error:
            raise SecretMissing(str(error), hint="set the secret again, if nothing else brings it back") from None
        await trio.sleep(AWAY_PAUSE_S)

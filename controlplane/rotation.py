"""Another encryption key, without a moment at which anything is unreadable.

The new key is put in force first, with the old one kept beside it; then everything that the old one closed is
closed anew, in batches; then the old one is destroyed. Broken off anywhere (a crash, a database that goes away),
both keys are at hand at the next start, and the rest is done then.

Where the key is SECRET_KEY, its operator replaces it and names the old one (SECRET_KEY_PREVIOUS): only the
middle part is left to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio
from attrs import define, field, frozen

from controlplane.errors import Conflict, CorralError, Overloaded
from controlplane.secretbox import SecretUnreadable

if TYPE_CHECKING:
    from controlplane.home import Home
    from controlplane.secretbox import SecretBox
    from controlplane.store.base import Store

RETRY_S = 30.0
"""Between two attempts to close the rest anew; meanwhile both keys open, so nothing is lost by waiting."""
log = logging.getLogger("corral.rotation")


@frozen(kw_only=True)
class Rotated:
    """What was done: ids of keys, in hex, and the number of boxes that were closed anew."""

    key_id: str
    previous_key_id: str
    boxes: int


@define(eq=False)
class _Attempt:
    boxes: int = 0
    failure: CorralError | None = None
    over: trio.Event = field(factory=trio.Event)


@define(eq=False)
class KeyRotation:
    """Replaces the key; `run` is a service loop that has the rest done, whoever leaves meanwhile.

    Args:
        turned: Called when another key is in force, for what is derived from it.
    """

    home: Home
    box: SecretBox
    store: Store
    turned: Callable[[], None]
    has_others: Callable[[], bool] = field(default=lambda: False)
    """Whether other control planes are on this database: what a new key closes, they could not open."""
    _attempt: _Attempt | None = field(default=None, init=False)
    _wanted: trio.Event = field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        if self.home.is_rotating:
            log.warning("the encryption key was being replaced when Corral ended; the rest is done now")
            self._wanted.set()

    async def rotate(self) -> Rotated:
        """Replace the key, and return when nothing is encrypted with the old one any more.

        Raises:
            Conflict: another one is under way, there are other control planes, there is nothing to replace it with, or
                something cannot be read.
            StorageUnavailable: the rest is done as soon as the database is back.
            Overloaded: the new key cannot be written.
        """
        if self.has_others():
            raise Conflict(
                "other control planes are on this database, and could not read what the new key encrypts",
                hint="stop all but one of them; replace the key there, and give the others the new one as SECRET_KEY",
            )
        if self._attempt is not None or self.home.is_rotating:
            raise Conflict(
                "the encryption key is being replaced already", hint="both keys work meanwhile; ask again later"
            )
        previous = self._turn()
        attempt = self._attempt = _Attempt()
        self._wanted.set()
        await attempt.over.wait()
        if attempt.failure is not None:
            raise attempt.failure
        return Rotated(key_id=self.box.key_id, previous_key_id=previous, boxes=attempt.boxes)

    def _turn(self) -> str:
        """Have the new key in force; returns the old one's id. Without a wait, so that both change together."""
        if self.home.keeps_key:
            previous = self.box.key_id
            try:
                self.box.turn_to(self.home.begin_rotation())
            except OSError as error:
                raise Overloaded(
                    f"the new key cannot be written: {error.strerror or error}; the old one stays"
                ) from None
            self.turned()
            log.warning("key %s replaces %s", self.box.key_id, previous)
            return previous
        if not self.box.previous_key_ids:
            raise Conflict(
                "the key is SECRET_KEY, and no other is known",
                hint="set a new SECRET_KEY, the old one as SECRET_KEY_PREVIOUS, start Corral again, and repeat this",
            )
        return self.box.previous_key_ids[-1]

    async def run(self) -> None:
        """Close the rest anew whenever that is wanted; survives an absent database."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            attempt = self._attempt or _Attempt()
            try:
                attempt.boxes = await self.store.seal_again()
                self._destroy_previous()
            except (CorralError, SecretUnreadable, OSError) as error:
                log.error("the old encryption key is still needed: %s; trying again in %g s", error, RETRY_S)
                attempt.failure = error if isinstance(error, CorralError) else Conflict(str(error))
                self._wanted.set()
            finally:
                self._attempt = None
                attempt.over.set()
            if self._wanted.is_set():
                await trio.sleep(RETRY_S)

    def _destroy_previous(self) -> None:
        if self.home.is_rotating:
            self.home.end_rotation()
        gone = ", ".join(self.box.previous_key_ids)
        self.box.forget_previous()
        if gone:
            log.warning("nothing is encrypted with key %s any more", gone)

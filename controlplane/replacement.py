"""Take over from the control plane that runs on the same home: `corral up --replace`.

All that can be refused is refused while the old one still serves. Then it hands over its listening sockets, is asked
to stop, and stops in order: calls in flight are answered, what it acknowledged is written. As soon as the home's lock
is free, everything starts here. Whoever connects meanwhile waits in the kernel's queue.
"""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import TYPE_CHECKING

import trio

from controlplane import predecessor, takeover
from controlplane.embedded import refuse_early, running_database
from controlplane.home import PRIVATE_FILE, HomeBusy, HomeUnusable, kept_keys, kept_token, open_home
from controlplane.secretbox import SecretBox
from controlplane.store import preflight
from controlplane.web.listeners import open_listeners

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from controlplane.config import Config
    from controlplane.home import Home
    from controlplane.predecessor import Predecessor

STOP_LIMIT_S = 12.0
"""For the old one to let go of the home: it ends hard after 9.5 s (`app.HARD_END_S`), and nothing more is to be had."""
POLL_S = 0.005
"""Between two looks at the lock, which cannot be waited for with a limit."""
log = logging.getLogger("corral")


async def take(config: Config, stack: AsyncExitStack) -> tuple[Home, tuple[socket.socket, ...]]:
    """Wait for the home and open it on `stack`.

    Returns:
        The home, and what to listen on.

    Raises:
        HomeUnusable, ConfigError, StorageUnavailable, SchemaRefused, SecretUnreadable, EmbeddedFailed: this one could
            not start; the old one goes on.
        HomeBusy: the old one does not stop.
    """
    with _alone(config.home), predecessor.find(config.home) as old:
        if old is None:
            return stack.enter_context(open_home(config)), ()
        await _refuse_early(config)
        with ExitStack() as opened:
            listeners = _inherit(config, old) or _try_to_listen(config)
            for listener in listeners:
                opened.enter_context(listener)
            log.info("taking over from process %d", old.pid)
            old.ask_to_stop()
            home, late = await _wait_for_home(config, stack, old, listens=bool(listeners))
            opened.pop_all()
        return home, listeners or late


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Two that took over at once would ask twice, and who is asked twice ends at once."""
    home.mkdir(parents=True, exist_ok=True)
    fd = os.open(home / "takeover.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HomeUnusable(f"another control plane is taking over {home} at this moment: wait for it") from None
        yield
    finally:
        os.close(fd)


async def _refuse_early(config: Config) -> None:
    """The programs; the database, as far as it can be looked at from outside; the keys for what is in it."""
    await refuse_early(config)
    try:
        url = config.database_url or running_database(config.home)
        if url is None:
            return  # the old one is at its start, or at its end
        key, *previous = kept_keys(config)
    except OSError as error:
        raise HomeUnusable(f"{error.filename} cannot be used: {error.strerror}. Mend it") from error
    steps = await preflight.check(url, SecretBox(key, tuple(previous)))
    if steps:
        log.info("the database will get %d migrations once the old control plane has stopped", steps)


def _inherit(config: Config, old: Predecessor) -> tuple[socket.socket, ...]:
    """The old one's listening sockets; none if it has none for us."""
    try:
        given = takeover.ask(config.home / "run", kept_token(config.home) or "", old.pid)
    except (takeover.NoOffer, OSError) as error:
        log.warning("process %d hands nothing over (%s): callers are refused for a moment", old.pid, error)
        return ()
    if given.fits(config.host, config.port):
        return given.listeners
    given.close()
    return ()


def _try_to_listen(config: Config) -> tuple[socket.socket, ...]:
    """None while the address is the old one's; should it be a third one's, who listens last says so."""
    try:
        return tuple(open_listeners(config.host, config.port))
    except OSError:
        return ()


async def _wait_for_home(
    config: Config, stack: AsyncExitStack, old: Predecessor, *, listens: bool
) -> tuple[Home, tuple[socket.socket, ...]]:
    """Until the old one has let go of it. It stops listening long before: from then on, whoever connects waits here."""
    deadline = trio.current_time() + STOP_LIMIT_S
    listeners: tuple[socket.socket, ...] = ()
    try:
        while True:
            if not (listens or listeners):
                listeners = _try_to_listen(config)
            try:
                return stack.enter_context(open_home(config)), listeners
            except HomeBusy as busy:
                if trio.current_time() > deadline:
                    raise HomeUnusable(
                        f"process {old.pid} was asked to stop and still holds {config.home} after {STOP_LIMIT_S:g} s: "
                        f"it hangs. End it (kill -KILL {old.pid}), then start again"
                    ) from busy
            await trio.sleep(POLL_S)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise

"""Keeping a catalogue up to date: asking the server for its lists, and handing what has changed to the database.

What Corral asks on its own account is no call of a user's: it is not counted, waits
for nobody, and ends with the process it asks. At most one round a second, however
often a server says that something has changed. A modern server says so only to those
who listen, so Corral stays subscribed to its lists.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import msgspec
import trio

from controlplane.core.jsonrpc import METHOD_NOT_FOUND, encode, error_code
from controlplane.errors import BadChildMessage, CorralError
from controlplane.protocol import dialect
from controlplane.protocol.handshake import Era
from controlplane.protocol.listening import ACKNOWLEDGED, LISTEN, list_listen
from controlplane.protocol.pending import Told
from controlplane.supervise.catalogue import MAX_BYTES
from controlplane.supervise.listpages import METHODS, Page, offered, read_page

if TYPE_CHECKING:
    from controlplane.model import Section
    from controlplane.supervise.catalogue import Catalogue
    from controlplane.supervise.child import Child
    from controlplane.supervise.lane import Lane
    from controlplane.supervise.runner import Runner

MAX_PAGES = 50
"""A server that always has a next page is not followed further."""
INTERVAL_S = 1.0
"""From the end of one round to the next."""
ASK_S = 10.0
"""For one page."""
ROUND_S = 30.0
"""For all pages of all sections; what is missing then is asked for when it changes next, or taken as it passes by."""
KEPT_S = 24 * 3600.0
"""How long a listing stays in the cache after it was last written there."""
SHOWN_CHARS = 200
"""Of a server's refusal."""


Ask = Callable[[str, bytes | None], Awaitable[bytes]]
"""Makes one call: method and raw parameters in, the raw member of the answer out."""
log = logging.getLogger("corral.supervise")


async def listed(ask: Ask, section: Section, redact: Callable[[str], str]) -> list[Page]:
    """Ask for all pages of a section. A server that does not know the method has nothing there.

    Args:
        ask: Makes one call.
        section: Which list.
        redact: For what an error says of the server's words.

    Raises:
        BadChildMessage: the server refused, or answered something else than a list, or one larger than is kept.
        CorralError: the call could not be made.
    """
    method, pages, size = METHODS[section], list[Page](), 0
    cursor: bytes | None = None
    while len(pages) < MAX_PAGES:
        params = encode({} if cursor is None else {"cursor": msgspec.Raw(cursor)})
        member = await ask(method, params)
        if error_code(member) == METHOD_NOT_FOUND and member.startswith(b'"error"'):
            break
        page = read_page(section, member)
        if page is None:
            shown = redact(member.decode("utf-8", "replace"))[:SHOWN_CHARS]
            raise BadChildMessage(f"the server's answer to {method} is no list: {shown}")
        pages.append(page)
        size += sum(map(len, page.items))
        if size > MAX_BYTES:
            raise BadChildMessage(f"what the server lists for {method} is larger than {MAX_BYTES} bytes")
        if page.cursor is None or page.cursor == cursor:
            break
        cursor = page.cursor
    return pages


async def list_for_caller(runner: Runner, section: Section) -> None:
    """Bring one section of the catalogue up to date on a caller's account: counted and bounded as any call.

    Raises:
        CorralError: see `listed`.
    """
    asked = runner.child
    if not runner.catalogue.take(section, await listed(runner.call, section, runner.logbook.redact)):
        raise BadChildMessage("the server lists more than is kept of one instance")
    if asked is not None and runner.child is not asked:  # another process serves by now, and may list something else
        runner.catalogue.outdated(section)


async def keep_fresh(runner: Runner) -> None:
    """Service loops of one instance's catalogue: hear of changes, refresh what is due, hand on what is new. Never raises."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_hear, runner)
        await _work(runner, runner.catalogue)


async def _work(runner: Runner, catalogue: Catalogue) -> None:
    while True:
        work = trio.Event()
        catalogue.wake = work.set
        if not catalogue.has_work:
            await work.wait()
        try:
            await _refresh(runner, catalogue)
            await _save(runner, catalogue)
        except Exception:
            # One tenant's trouble, or our bug in handling it, never crosses the supervisor's nursery.
            log.exception("instance %s: its catalogue was not refreshed", runner.instance.id)
        await trio.sleep(INTERVAL_S)


async def _refresh(runner: Runner, catalogue: Catalogue) -> None:
    due, child = catalogue.take_due(), runner.child
    if not due or child is None or not _is_served_by(runner, child):
        return
    with trio.move_on_after(ROUND_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_ask_all, runner, child, due, nursery.cancel_scope)
            while _is_served_by(runner, child):
                await runner.orders.wait()
            nursery.cancel_scope.cancel()


def _is_served_by(runner: Runner, child: Child) -> bool:
    return runner.serving and runner.child is child


async def _ask_all(runner: Runner, child: Child, due: list[Section], done: trio.CancelScope) -> None:
    for section in due:
        try:
            ask = partial(_ask, runner, child)
            pages = await listed(ask, section, runner.logbook.redact)
        except CorralError as error:
            log.debug("instance %s: %s was not listed: %s", runner.instance.id, section.value, error)
            continue
        if _is_served_by(runner, child):
            runner.catalogue.take(section, pages)
    done.cancel()


async def _ask(runner: Runner, child: Child, method: str, params: bytes | None) -> bytes:
    """Ask past the meter."""
    owed_s = min(runner.instance.spec.limits.call_timeout_s, runner.around.config.max_call_timeout_s)
    return await child.session.call(method, params, timeout_s=ASK_S, owed_s=owed_s, is_own=True)


async def _hear(runner: Runner) -> None:
    """Stay subscribed to the lists of each modern process, one after the other."""
    while True:
        lane = runner.lane
        if lane is None or not runner.serving:
            await runner.orders.wait()
            continue
        async with trio.open_nursery() as nursery:
            if lane.era is Era.MODERN and (params := list_listen(lane.facts.capabilities)) is not None:
                nursery.start_soon(_listen, runner, lane, params)
            await lane.retired.wait()
            nursery.cancel_scope.cancel()
        while runner.lane is lane:
            await runner.orders.wait()


async def _listen(runner: Runner, lane: Lane, params: bytes) -> None:
    """One subscription, for as long as the server keeps it open. What it delivers, the session's listener hears as well."""
    version, pending = runner.around.version, lane.session.pending
    try:
        enveloped = dialect.outgoing_params(Era.MODERN, params, version)
        call = await lane.session.open(LISTEN, enveloped, timeout_s=inf, asker=None, logs=False)
        while not isinstance(said := await pending.next(call), bytes):
            if isinstance(said, Told) and said.method == ACKNOWLEDGED:
                for section in offered(lane.facts):  # what changed before it was acknowledged was told to nobody
                    runner.catalogue.outdated(section)
    except CorralError as error:
        log.debug("instance %s: nothing is heard of its lists: %s", runner.instance.id, error)
    except Exception:
        log.exception("instance %s: nothing is heard of its lists", runner.instance.id)


async def _save(runner: Runner, catalogue: Catalogue) -> None:
    """To the database, by the journal, and to the cache, if there is one."""
    cache = runner.around.cache
    for listing in catalogue.take_unsaved():
        runner.around.journal.listing(listing)
        if cache is not None:
            await cache.put_listing(listing, KEPT_S)

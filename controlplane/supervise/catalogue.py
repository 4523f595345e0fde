"""What one instance offers: its tools, prompts, resources and resource templates, as its server last listed them.

Folds list answers in, says what has to be asked anew, and answers lists itself
while the server cannot, or need not. Pure but for the clocks it is given: asking
and keeping are `refresh`'s.

The server's items are kept as the bytes that it wrote. Refuses to guess: an answer
that is one page of several, or to a request that asked for something special, is
not taken for the whole; a list too large to keep leaves the one before in place.

Everybody who may call an instance is its owner (or an administrator), and its
server knows nobody else: what one of them was told, the next may be told as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec
from attrs import define, field

from controlplane.core.rawjson import decode_or_none, encode, items
from controlplane.model import Listing, Section
from controlplane.protocol.handshake import Era
from controlplane.protocol.param_headers import ParamHeader, param_headers
from controlplane.supervise.listpages import LIST_CHANGED, MEMBERS, SECTIONS, Page, is_plain, offered, read_page, ttl_s

if TYPE_CHECKING:
    from uuid import UUID

    from controlplane.protocol.handshake import ProtocolFacts

Mirrored = Mapping[str, tuple[ParamHeader, ...]]
MAX_BYTES = 4 * 2**20
"""All sections of one instance together: thousands of tools. No model reads more, and every instance may have as much."""
BESIDE_MAX_BYTES = 64 * 1024
"""What stands beside the items in an answer that may be given again; a larger one is asked for each time."""


@define(eq=False)
class _Kept:
    """One section as it is known. `items` is a raw array, None while the server was never heard."""

    items: bytes | None = None
    digest: bytes = b""
    seen_at: datetime | None = None
    fresh: bool = False
    due: bool = False
    unsaved: bool = False
    beside: dict[str, msgspec.Raw] = field(factory=dict)
    holds_until: float = 0.0
    """On the monotonic clock: until then the server's answer may be given again as it was."""

    def outdate(self) -> None:
        self.fresh, self.holds_until, self.beside = False, 0.0, {}


def _no_wake() -> None:
    pass


@define(eq=False)
class Catalogue:
    """One instance's; made empty, then `restore`d, and begun anew with each process.

    `wake` is called when there is something to refresh or to keep, and must not wait.
    """

    instance_id: UUID
    clock: Callable[[], float] = monotonic
    """The clock of `cached`'s `now`, in seconds."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    wake: Callable[[], None] = _no_wake
    restored: bool = field(default=False, init=False)
    """Whether earlier lives' listings were brought in, be it none."""
    _kept: dict[Section, _Kept] = field(factory=lambda: {section: _Kept() for section in Section}, init=False)
    _tools: list[dict[str, Any]] | None = field(default=None, init=False)
    _mirrored: Mirrored | None = field(default=None, init=False)
    _bare_was_asked: bool = field(default=False, init=False)

    # -- what it says

    def answer(self, method: str, params: bytes | None) -> bytes | None:
        """A list result while the server cannot be asked: what it listed last, all pages in one.

        In the form of the legacy versions, without `resultType`, `ttlMs` and `cacheScope`.

        Returns:
            A raw `"result":…` member; None for another method, with a cursor, or if it was never listed.
        """
        section = SECTIONS.get(method)
        kept = None if section is None else self._kept[section]
        if section is None or kept is None or kept.items is None or not is_plain(params):
            return None
        return b'"result":{"%b":%b}' % (MEMBERS[section].encode(), kept.items)

    def cached(self, method: str, params: bytes | None, now: float) -> bytes | None:
        """A list result that need not be asked for, because the server said so (MCP 2026-07-28, caching).

        The same request's whole answer, of scope `public` and within its `ttlMs`; `ttlMs` is what is left.

        Args:
            now: Seconds on `clock`.
        """
        section = SECTIONS.get(method)
        if section is None:
            return None
        kept = self._kept[section]
        if not kept.fresh or now >= kept.holds_until or kept.items is None or not is_plain(params):
            return None
        left_ms = int((kept.holds_until - now) * 1000)
        return b'"result":' + encode({MEMBERS[section]: msgspec.Raw(kept.items), **kept.beside, "ttlMs": left_ms})

    def tools(self) -> list[dict[str, Any]] | None:
        """The tools decoded, None if never listed; do not change them."""
        if self._tools is None:
            self._tools = self.values(Section.TOOLS)
        return self._tools

    def mirrored(self) -> Mirrored:
        """What calls of its tools say in header fields as well, by tool; nothing while that is not sure."""
        if not self._kept[Section.TOOLS].fresh:
            return {}
        if self._mirrored is None:
            self._mirrored = param_headers(self.tools() or ())
        return self._mirrored

    def values(self, section: Section) -> list[dict[str, Any]] | None:
        """A section's items decoded, None if never listed; one that cannot be decoded is left out."""
        kept = self._kept[section].items
        if kept is None:
            return None
        whole = decode_or_none(kept)
        listed = whole if isinstance(whole, list) else [decode_or_none(item) for item in items(kept) or ()]
        return [item for item in listed if isinstance(item, dict)]

    def digest(self, section: Section) -> bytes:
        """Changes when the section's items do; empty if never listed."""
        return self._kept[section].digest

    def is_fresh(self, section: Section) -> bool:
        """Whether the process that serves now said so, and has not taken it back."""
        return self._kept[section].fresh

    def seen_at(self, section: Section) -> datetime | None:
        """When the items were first seen as they are."""
        return self._kept[section].seen_at

    # -- what it hears

    def fold(self, method: str, params: bytes | None, member: bytes) -> None:
        """Take the answer of a list call that passed by, if it is the whole list."""
        section = SECTIONS.get(method)
        if section is None or not is_plain(params):
            return
        page = read_page(section, member)
        if page is not None and page.cursor is None:
            self.take(section, [page])

    def take(self, section: Section, pages: Iterable[Page]) -> bool:
        """Take all pages of a section, none for an empty one. False if they are too large to keep."""
        kept, pages = self._kept[section], list(pages)
        raw = b"[" + b",".join(item for page in pages for item in page.items) + b"]"
        if len(raw) + sum(len(other.items or b"") for s, other in self._kept.items() if s is not section) > MAX_BYTES:
            kept.outdate()
            return False
        self._keep(section, kept, raw)
        kept.outdate()
        kept.fresh = not kept.due  # a change was announced meanwhile: this may be from before it
        if len(pages) == 1:
            self._hold(kept, pages[0].beside)
        return True

    def _keep(self, section: Section, kept: _Kept, raw: bytes) -> None:
        digest = sha256(raw).digest()
        if digest == kept.digest:
            return
        kept.items, kept.digest, kept.seen_at, kept.unsaved = raw, digest, self.now(), True
        self._forget_decoded(section)
        self.wake()

    def _hold(self, kept: _Kept, beside: dict[str, msgspec.Raw]) -> None:
        """Note how long the answer may be given again, and what stood beside the items in it."""
        holds_s = ttl_s(beside)
        if holds_s > 0 and sum(map(len, map(bytes, beside.values()))) <= BESIDE_MAX_BYTES:
            kept.beside, kept.holds_until = beside, self.clock() + holds_s

    def outdated(self, section: Section) -> None:
        """The server says that the section has changed: ask again."""
        kept = self._kept[section]
        kept.outdate()
        kept.due = True
        self.wake()

    def told(self, method: str) -> None:
        """Heed a notification of the server, if it is about lists.

        Of resources and their templates there is one for both.
        """
        for section in LIST_CHANGED.get(method, ()):
            self.outdated(section)

    def begin(self, facts: ProtocolFacts, *, is_new: bool = False) -> None:
        """A new process serves: all is to be asked again, and what it does not offer is gone.

        Tools stay as last seen: there are servers that have some and do not say so.
        A bare server takes one call at a time and is given up when one stays unanswered:
        it is asked once, by the first process that has not been listed.

        Args:
            is_new: It is the first of another revision, which may have other tools.
        """
        present = offered(facts)
        for section, kept in self._kept.items():
            kept.outdate()
            kept.due = section in present or (is_new and section is Section.TOOLS)
            if section not in present and section is not Section.TOOLS and kept.items is not None:
                self.take(section, ())
        if facts.era is Era.BARE:
            tools = self._kept[Section.TOOLS]
            tools.due = is_new or (not self._bare_was_asked and tools.items is None)
            self._bare_was_asked = True
        self.wake()

    def end(self) -> None:
        """The process serves no longer: nothing can be asked, and what it said may not hold for the next."""
        for kept in self._kept.values():
            kept.outdate()
            kept.due = False

    # -- what there is to do

    @property
    def has_work(self) -> bool:
        """Whether there is something to ask or to keep."""
        return any(kept.due or kept.unsaved for kept in self._kept.values())

    def take_due(self) -> list[Section]:
        """The sections to ask for, which are not due any more unless they change again."""
        due = [section for section, kept in self._kept.items() if kept.due]
        for section in due:
            self._kept[section].due = False
        return due

    def take_unsaved(self) -> list[Listing]:
        """What has changed since this was last asked."""
        changed = [section for section, kept in self._kept.items() if kept.unsaved]
        for section in changed:
            self._kept[section].unsaved = False
        return [self._listing(section) for section in changed]

    def _listing(self, section: Section) -> Listing:
        kept = self._kept[section]
        assert kept.items is not None
        assert kept.seen_at is not None
        return Listing(
            instance_id=self.instance_id, section=section, items=kept.items, digest=kept.digest, seen_at=kept.seen_at
        )

    def restore(self, listings: Iterable[Listing], *, all_there_are: bool = True) -> None:
        """Bring in what an earlier life saw, where this one has not seen anything yet."""
        self.restored = self.restored or all_there_are
        for listing in listings:
            kept = self._kept[listing.section]
            if kept.items is None:
                kept.items, kept.digest, kept.seen_at = listing.items, listing.digest, listing.seen_at
                self._forget_decoded(listing.section)

    def _forget_decoded(self, section: Section) -> None:
        if section is Section.TOOLS:
            self._tools = self._mirrored = None

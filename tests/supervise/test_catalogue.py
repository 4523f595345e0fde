"""What an instance offers: what is taken for it, how long it holds, and what is answered from it; no I/O."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model import Section
from controlplane.protocol.handshake import Era, ProtocolFacts
from controlplane.supervise.catalogue import BESIDE_MAX_BYTES, MAX_BYTES, Catalogue
from controlplane.supervise.listpages import SECTIONS, TTL_MAX_S, read_page

ONE = UUID(int=1)
SOME = b'"result":{"tools":[{"name":"echo"}]}'
ALL = {"tools": {}, "prompts": {"listChanged": True}, "resources": {}}


@define
class Clocks:
    """A catalogue whose times the test sets, and how often it called for work."""

    s: float = 100.0
    at: datetime = datetime(2026, 11, 22, 12, tzinfo=UTC)
    woken: int = 0
    catalogue: Catalogue = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.catalogue = Catalogue(ONE, clock=lambda: self.s, now=lambda: self.at, wake=self.wake)

    def wake(self) -> None:
        self.woken += 1

    def cached(self, method: str = "tools/list", params: bytes | None = None) -> Any:
        member = self.catalogue.cached(method, params, self.s)
        return None if member is None else json.loads(b"{" + member + b"}")["result"]


def facts(era: Era = Era.LEGACY, **capabilities: Any) -> ProtocolFacts:
    return ProtocolFacts(era=era, version="2025-11-25", capabilities=capabilities)


def result(**members: Any) -> bytes:
    return b'"result":' + json.dumps(members).encode()


def names(catalogue: Catalogue) -> list[str] | None:
    listed = catalogue.tools()
    return None if listed is None else [tool["name"] for tool in listed]


def public(ttl_ms: Any = 60_000, **members: Any) -> bytes:
    return result(
        **{"resultType": "complete", "tools": [{"name": "echo"}], "ttlMs": ttl_ms, "cacheScope": "public"} | members
    )


def test_nothing_is_known_at_first() -> None:
    catalogue = Catalogue(ONE)
    assert catalogue.tools() is None
    assert catalogue.answer("tools/list", None) is None
    assert catalogue.cached("tools/list", None, 0.0) is None
    assert not catalogue.has_work
    assert catalogue.take_unsaved() == []


@pytest.mark.parametrize("params", [None, b"{}", b"null", b'{"_meta": {"progressToken": 1}}'])
def test_a_whole_list_that_passes_by_is_taken_and_answered_from(params: bytes | None) -> None:
    catalogue = Catalogue(ONE)
    catalogue.fold("tools/list", params, SOME)
    assert catalogue.answer("tools/list", params) == SOME
    assert names(catalogue) == ["echo"]
    assert catalogue.is_fresh(Section.TOOLS)


@pytest.mark.parametrize(
    ("params", "member"),
    [
        (b'{"cursor": "2"}', SOME),
        (b'{"inputResponses": {}}', SOME),
        (b"[]", SOME),
        (None, result(tools=[{"name": "a"}], nextCursor="2")),
        (None, result(tools="many")),
        (None, result(resultType="input_required", inputRequests={})),
        (None, b'"result":[]'),
        (None, b'"result":'),
        (None, b'"error":{"code":-32601,"message":"Method not found"}'),
    ],
)
def test_a_part_of_a_list_and_what_is_no_list_are_not_taken(params: bytes | None, member: bytes) -> None:
    catalogue = Catalogue(ONE)
    catalogue.fold("tools/list", params, member)
    assert catalogue.tools() is None


def test_other_methods_pass_by() -> None:
    catalogue = Catalogue(ONE)
    catalogue.fold("tools/call", None, SOME)
    assert catalogue.tools() is None
    assert catalogue.answer("tools/call", None) is None
    assert catalogue.cached("resources/read", None, 0.0) is None


@pytest.mark.parametrize("cursor", [None, ""])
def test_a_cursor_that_says_nothing_is_none(cursor: str | None) -> None:
    catalogue = Catalogue(ONE)
    catalogue.fold("tools/list", None, result(tools=[], nextCursor=cursor))
    assert catalogue.tools() == []


def test_each_section_has_its_method_and_its_member() -> None:
    catalogue = Catalogue(ONE)
    for method, member in (
        ("prompts/list", b'"result":{"prompts":[{"name":"p"}]}'),
        ("resources/list", b'"result":{"resources":[{"uri":"file:///a"}]}'),
        ("resources/templates/list", b'"result":{"resourceTemplates":[{"uriTemplate":"file:///{a}"}]}'),
    ):
        catalogue.fold(method, None, member)
        assert catalogue.answer(method, None) == member
    assert catalogue.values(Section.RESOURCE_TEMPLATES) == [{"uriTemplate": "file:///{a}"}]
    assert catalogue.tools() is None


def test_items_stay_as_the_server_wrote_them() -> None:
    odd = b'{"name": "\\ud83d", "n":123456789012345678901234567890, "x":1.50,"x":2}'
    catalogue = Catalogue(ONE)
    catalogue.fold("tools/list", None, b'"result":{"tools": [%b,  {}, 7]}' % odd)
    assert catalogue.answer("tools/list", None) == b'"result":{"tools":[%b,{}]}' % odd
    assert names(Catalogue(ONE)) is None
    assert (catalogue.tools() or [{}])[0]["name"] == "�"


def test_all_pages_are_one_answer() -> None:
    catalogue = Catalogue(ONE)
    pages = [read_page(Section.TOOLS, result(tools=[{"name": name}])) for name in "ab"]
    catalogue.take(Section.TOOLS, [page for page in pages if page is not None])
    assert catalogue.answer("tools/list", None) == b'"result":{"tools":[{"name": "a"},{"name": "b"}]}'
    assert catalogue.answer("tools/list", b'{"cursor":"2"}') is None


def test_a_list_too_large_to_keep_leaves_the_one_before() -> None:
    catalogue = Catalogue(ONE)
    catalogue.fold("tools/list", None, SOME)
    catalogue.fold("tools/list", None, result(tools=[{"name": "x" * MAX_BYTES}]))
    assert names(catalogue) == ["echo"]
    assert not catalogue.is_fresh(Section.TOOLS)
    half = "x" * (MAX_BYTES // 2)
    catalogue.fold("prompts/list", None, result(prompts=[{"name": half}]))
    catalogue.fold("resources/list", None, result(resources=[{"name": half}]))  # all sections share the room
    assert catalogue.values(Section.RESOURCES) is None


# -- what is kept


def test_only_what_has_changed_is_to_be_kept() -> None:
    clocks = Clocks()
    catalogue = clocks.catalogue
    catalogue.fold("tools/list", None, SOME)
    first = clocks.at
    assert [(row.section, row.items, row.seen_at) for row in catalogue.take_unsaved()] == [
        (Section.TOOLS, b'[{"name":"echo"}]', first)
    ]
    clocks.at += timedelta(hours=1)
    woken = clocks.woken
    catalogue.fold("tools/list", None, SOME)
    assert (catalogue.take_unsaved(), catalogue.has_work, clocks.woken) == ([], False, woken)
    assert catalogue.seen_at(Section.TOOLS) == first

    catalogue.fold("tools/list", None, b'"result":{"tools":[]}')
    assert catalogue.has_work
    assert clocks.woken == woken + 1
    assert [row.seen_at for row in catalogue.take_unsaved()] == [clocks.at]


def test_what_an_earlier_life_saw_is_answered_until_there_is_better() -> None:
    earlier, later = Catalogue(ONE), Catalogue(ONE)
    earlier.fold("tools/list", None, SOME)
    earlier.fold("prompts/list", None, b'"result":{"prompts":[]}')
    kept = earlier.take_unsaved()

    later.fold("prompts/list", None, b'"result":{"prompts":[{"name":"new"}]}')
    later.take_unsaved()
    assert not later.restored
    later.restore(kept)
    assert later.restored
    assert later.answer("tools/list", None) == SOME
    assert later.answer("prompts/list", None) == b'"result":{"prompts":[{"name":"new"}]}'
    assert not later.is_fresh(Section.TOOLS)
    assert later.digest(Section.TOOLS) == earlier.digest(Section.TOOLS)

    later.fold("tools/list", None, SOME)
    assert not later.has_work  # nothing new to write


# -- what is asked anew


def test_a_new_process_is_asked_for_what_it_offers() -> None:
    clocks = Clocks()
    catalogue = clocks.catalogue
    catalogue.begin(facts(**ALL))
    assert clocks.woken == 1
    assert catalogue.take_due() == list(Section)
    assert not catalogue.has_work

    catalogue.begin(facts(prompts={}))
    assert catalogue.take_due() == [Section.PROMPTS]
    catalogue.begin(ProtocolFacts(era=Era.LEGACY))  # it knows no handshake
    assert catalogue.take_due() == [Section.TOOLS]


def test_what_a_new_process_does_not_offer_any_more_is_gone() -> None:
    catalogue = Catalogue(ONE)
    catalogue.fold("prompts/list", None, result(prompts=[{"name": "p"}]))
    catalogue.fold("tools/list", None, SOME)
    catalogue.begin(facts())
    assert names(catalogue) == ["echo"]  # some have tools and do not say so
    assert catalogue.values(Section.PROMPTS) == []
    assert catalogue.values(Section.RESOURCES) is None


def test_a_process_that_has_ended_is_not_asked() -> None:
    catalogue = Catalogue(ONE)
    catalogue.begin(facts(**ALL))
    catalogue.fold("tools/list", None, SOME)
    catalogue.take_unsaved()
    catalogue.end()
    assert not catalogue.has_work
    assert not catalogue.is_fresh(Section.TOOLS)
    assert names(catalogue) == ["echo"]


def test_a_bare_server_is_asked_for_tools_and_once() -> None:
    catalogue = Catalogue(ONE)
    catalogue.begin(facts(Era.BARE))
    assert catalogue.take_due() == [Section.TOOLS]
    catalogue.begin(facts(Era.BARE))  # perhaps it was the question that it did not survive
    assert catalogue.take_due() == []

    known = Catalogue(ONE)
    known.fold("tools/list", None, SOME)
    known.begin(facts(Era.BARE))
    assert known.take_due() == []
    assert names(known) == ["echo"]


@pytest.mark.parametrize(
    ("method", "due"),
    [
        ("notifications/tools/list_changed", [Section.TOOLS]),
        ("notifications/prompts/list_changed", [Section.PROMPTS]),
        ("notifications/resources/list_changed", [Section.RESOURCES, Section.RESOURCE_TEMPLATES]),
        ("notifications/resources/updated", []),
        ("notifications/message", []),
    ],
)
def test_a_change_that_is_announced_is_asked_for(method: str, due: list[Section]) -> None:
    catalogue = Catalogue(ONE)
    for listed in SECTIONS:
        catalogue.fold(listed, None, b'"result":{}')
    catalogue.told(method)
    assert [section for section in Section if not catalogue.is_fresh(section)] == due
    assert catalogue.take_due() == due


def test_what_calls_mirror_in_fields_is_known_while_the_list_is_up_to_date() -> None:
    def tool(header: str) -> dict[str, Any]:
        return {"name": "look", "inputSchema": {"properties": {"place": {"type": "string", "x-mcp-header": header}}}}

    catalogue = Catalogue(ONE)
    assert catalogue.mirrored() == {}
    catalogue.fold("tools/list", None, result(tools=[tool("Place"), {"name": "echo"}]))
    assert [header.field for header in catalogue.mirrored()["look"]] == [b"mcp-param-place"]
    assert "echo" not in catalogue.mirrored()

    catalogue.outdated(Section.TOOLS)
    assert catalogue.mirrored() == {}
    assert catalogue.take_due() == [Section.TOOLS]
    catalogue.fold("tools/list", None, result(tools=[tool("Where")]))
    assert [header.field for header in catalogue.mirrored()["look"]] == [b"mcp-param-where"]


def test_an_answer_that_came_before_the_refresh_does_not_end_it() -> None:
    catalogue = Catalogue(ONE)
    catalogue.outdated(Section.TOOLS)
    catalogue.fold("tools/list", None, SOME)  # asked before the change, perhaps
    assert not catalogue.is_fresh(Section.TOOLS)
    assert catalogue.take_due() == [Section.TOOLS]
    catalogue.fold("tools/list", None, SOME)
    assert catalogue.is_fresh(Section.TOOLS)


# -- what need not be asked


def test_a_public_answer_holds_for_its_time_and_says_how_much_is_left() -> None:
    clocks = Clocks()
    clocks.catalogue.fold("tools/list", None, public(_meta={"a/b": 1}))
    assert clocks.cached() == {
        "resultType": "complete",
        "tools": [{"name": "echo"}],
        "ttlMs": 60_000,
        "cacheScope": "public",
        "_meta": {"a/b": 1},
    }
    clocks.s += 59
    assert clocks.cached()["ttlMs"] == 1000
    assert clocks.cached(params=b'{"_meta":{}}') is not None
    assert clocks.cached(params=b'{"cursor":"x"}') is None
    assert clocks.cached("prompts/list") is None
    clocks.s += 1
    assert clocks.cached() is None
    assert clocks.catalogue.answer("tools/list", None) is not None


@pytest.mark.parametrize(
    "member",
    [
        SOME,
        public(ttl_ms=0),
        public(ttl_ms=-1),
        public(ttl_ms=True),
        public(ttl_ms="60000"),
        public(ttl_ms=None),
        public(cacheScope="private"),
        public(cacheScope=None),
        public(cacheScope=["public"]),
        public(padding="x" * BESIDE_MAX_BYTES),
    ],
)
def test_without_a_clear_permission_every_call_asks(member: bytes) -> None:
    clocks = Clocks()
    clocks.catalogue.fold("tools/list", None, member)
    assert names(clocks.catalogue) == ["echo"]
    assert clocks.cached() is None


def test_no_answer_holds_for_ever() -> None:
    clocks = Clocks()
    clocks.catalogue.fold("tools/list", None, public(ttl_ms=10**30))
    clocks.s += TTL_MAX_S - 1
    assert clocks.cached() is not None
    clocks.s += 1
    assert clocks.cached() is None


def test_a_change_a_new_process_and_a_later_answer_end_what_holds() -> None:
    for happens in (
        lambda catalogue: catalogue.told("notifications/tools/list_changed"),
        lambda catalogue: catalogue.begin(facts()),
        lambda catalogue: catalogue.end(),
        lambda catalogue: catalogue.fold("tools/list", None, SOME),
    ):
        clocks = Clocks()
        clocks.catalogue.fold("tools/list", None, public())
        assert clocks.cached() is not None
        happens(clocks.catalogue)
        assert clocks.cached() is None


def test_an_answer_of_several_pages_is_asked_for_each_time() -> None:
    clocks = Clocks()
    page = read_page(Section.TOOLS, public())
    assert page is not None
    clocks.catalogue.take(Section.TOOLS, [page, page])
    assert clocks.cached() is None


@given(
    params=st.none() | st.binary(max_size=60),
    member=st.binary(max_size=200),
    prefix=st.sampled_from([b"", b'"result":', b'"result":{"tools":']),
)
def test_whatever_a_server_answers_is_taken_or_left(params: bytes | None, member: bytes, prefix: bytes) -> None:
    catalogue = Catalogue(ONE)
    catalogue.fold("tools/list", params, prefix + member)
    answered = catalogue.answer("tools/list", None)
    assert (answered is None) == (catalogue.tools() is None)

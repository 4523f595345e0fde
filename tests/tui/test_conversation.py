"""What the inspector sends and hears, what it shows of results, and what it keeps: the parts without a screen."""

from __future__ import annotations

import base64
import json
import struct
from typing import TYPE_CHECKING, Any

import pytest

from tui.inspector import history, keeping
from tui.inspector.content import blocks_of, image_facts
from tui.inspector.conversation import Question, Request, field_value, headers_of, heard_of, is_corrals
from tui.inspector.offers import fitting, prompts_of, request_of, templates_of, tools_of
from tui.inspector.outline import PIECE, Outline
from tui.inspector.verdict import bar
from tui.screens.question import QuestionScreen

if TYPE_CHECKING:
    from pathlib import Path


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


# -- sending


def test_fields_repeat_the_method_the_name_and_the_arguments_that_a_schema_wants_repeated() -> None:
    schema = {"properties": {"region": {"type": "string", "x-mcp-header": "Region"}, "n": {"x-mcp-header": "N"}}}
    params = {"name": "schön", "arguments": {"region": "eu west", "n": 3, "other": 1}}
    headers = headers_of(Request(method="tools/call", params=params, schema=schema))
    assert headers["Mcp-Method"] == "tools/call"
    assert headers["Mcp-Name"] == "=?base64?c2Now7Zu?="
    assert (headers["Mcp-Param-Region"], headers["Mcp-Param-N"]) == ("eu west", "3")


@pytest.mark.parametrize("text", ["a\r\nEvil: 1", "=?base64?x?=", " padded ", "ü"])
def test_what_no_field_may_hold_is_sent_as_base64(text: str) -> None:
    value = field_value(text)
    assert base64.b64decode(value[len("=?base64?") : -2]).decode() == text


@pytest.mark.parametrize("params", [None, [], {"progress": "x"}, {"progress": 1e300}, {"message": nested(50)}])
def test_odd_notifications_are_heard_without_harm(params: Any) -> None:
    assert heard_of({"method": "notifications/progress", "params": params}).kind == "progress"


def test_corrals_own_errors_are_told_from_the_servers() -> None:
    assert is_corrals({"code": 502, "message": "x", "data": {"code": "crashed", "title": "t"}})
    assert not is_corrals({"code": -32603, "message": "x", "data": {"title": "t"}})
    assert not is_corrals({"code": 502, "data": "no"})


def test_a_progress_bar_shows_figures_and_never_more_than_full() -> None:
    assert bar(2, 4, 4) == "▕██░░▏ 2 of 4"
    assert bar(9, 4, 4) == "▕████▏ 9 of 4"
    assert bar(3, None) == "3"


# -- what is offered


def test_offers_are_made_of_what_is_well_formed_and_the_rest_is_passed_over() -> None:
    items = [{"name": "a\x1b", "annotations": {"readOnlyHint": True}, "inputSchema": {"required": ["x", 5]}}, {}, 3]
    [offer] = tools_of(items)
    assert (offer.label, offer.hints, offer.required) == ("a\\x1b", ("read-only",), ("x",))
    assert tools_of({"not": "a list"}) == []


def test_each_kind_of_offer_is_asked_for_by_its_method() -> None:
    [prompt] = prompts_of([{"name": "p", "arguments": [{"name": "t", "required": True}]}])
    assert request_of(prompt, {"t": "x"}) == ("prompts/get", {"name": "p", "arguments": {"t": "x"}})
    [template] = templates_of([{"uriTemplate": "n://{x}", "name": "N"}])
    assert request_of(template, {"uri": "n://1"}) == ("resources/read", {"uri": "n://1"})
    assert fitting([prompt, template], "PROMPT p") == [prompt]


def test_what_is_called_so_comes_before_what_only_speaks_of_it() -> None:
    speaking, called = tools_of([{"name": "research", "description": "with elicitation"}, {"name": "trigger-elicit"}])
    assert fitting([speaking, called], "elicit") == [called, speaking]
    assert fitting([speaking, called], "") == [speaking, called]


# -- results


def test_images_are_told_by_the_bytes_of_their_headers() -> None:
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 3, 2)
    jpeg = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x11\x08\x00\x02\x00\x03"
    webp = b"RIFF\0\0\0\0WEBPVP8X" + b"\0" * 8 + (2).to_bytes(3, "little") + (1).to_bytes(3, "little")
    gif = b"GIF89a" + struct.pack("<HH", 3, 2)
    for data, name in ((png, "PNG"), (jpeg, "JPEG"), (webp, "WebP"), (gif, "GIF")):
        assert image_facts(data) == (name, (3, 2))
        for cut in range(len(data)):
            image_facts(data[:cut])
    assert image_facts(b"") == ("unknown format", None)


def test_results_become_blocks_of_clean_lines() -> None:
    result = {
        "content": [
            {"type": "text", "text": "plain\x1b[2J\nnext"},
            {"type": "text", "text": "# Title\n- item"},
            {"type": "text", "text": '{"a": 1}'},
            {"type": "resource_link", "uri": "file:///x", "name": "X"},
            {"type": "resource", "resource": {"uri": "r://1", "text": "inside"}},
            {"type": "audio", "data": "AAAA", "mimeType": "audio/wav"},
            {"type": "new", "x": 1},
            5,
        ],
        "structuredContent": {"b": 2},
    }
    blocks = blocks_of(result)
    assert [block.kind for block in blocks] == [
        "text",
        "markdown",
        "json",
        "fact",
        "text",
        "fact",
        "json",
        "json",
        "json",
    ]
    assert blocks[0].lines == ("plain\\x1b[2J", "next")
    assert blocks[5].lines == ("audio/wav, 3 B",)


def test_structured_content_that_a_text_says_already_is_not_shown_twice() -> None:
    result = {"content": [{"type": "text", "text": '{"b": 2}'}], "structuredContent": {"b": 2}}
    assert len(blocks_of(result)) == 1


@pytest.mark.parametrize(
    "result", [None, 5, [], nested(900), {"content": [None, {"role": "x", "content": nested(900)}]}]
)
def test_no_result_is_too_odd(result: Any) -> None:
    assert blocks_of(result)
    Outline(result)


def test_large_markdown_is_plain_text() -> None:
    [block] = blocks_of({"content": [{"type": "text", "text": "- item\n" * 5000}]})
    assert block.kind == "text"


# -- the tree


def test_a_tree_unfolds_a_piece_at_a_time() -> None:
    tree = Outline({"many": list(range(250)), "text": "x" * 1000})
    many = next(at for at, line in enumerate(tree.lines) if line.label == "many")
    if tree.lines[many].is_open:
        tree.fold(many)
    tree.unfold(many)
    more = many + PIECE + 1
    assert tree.lines[more].shown == "… 150 more"
    tree.toggle(more)
    assert tree.lines[more].label == "100"
    tree.toggle(more + PIECE)
    assert tree.lines[more + PIECE].label == "200"
    assert not any(line.sort == "more" for line in tree.lines)
    tree.fold(many)
    assert tree.lines[many + 1].label == "text"
    tree.unfold(many + 1)
    assert sum(line.sort == "text" for line in tree.lines) == 10


def test_a_deep_document_is_unfolded_as_far_as_a_person_reads() -> None:
    tree = Outline(nested(900))
    assert len(tree.lines) <= 100


# -- questions


def test_the_system_prompt_of_a_question_is_shown_line_by_line_and_clean() -> None:
    asked = Question("sampling/createMessage", {"systemPrompt": "Be brief.\nBe \x1b[2Jkind.", "messages": []})
    said = QuestionScreen(asked, "desk").said()
    assert (said[0].title, list(said[0].lines)) == ("system", ["Be brief.", "Be \\x1b[2Jkind."])


# -- history


def entry(name: str, at: float = 1.0, **arguments: Any) -> history.Entry:
    return history.entry_of(at, "tools/call", {"name": name, "arguments": arguments})


def test_the_newest_hundred_are_kept_and_those_with_a_name() -> None:
    found: dict[str, list[history.Entry]] = {}
    found = history.added(found, "here", entry("first"))
    found = history.named(found, "here", found["here"][0], "keep me")
    for number in range(150):
        found = history.added(found, "here", entry("t", number, n=number))
    assert len(found["here"]) == history.KEPT
    assert found["here"][-1].name == "keep me"
    again = history.added(found, "here", entry("first", 9.0))
    assert (again["here"][0].name, len(again["here"])) == ("keep me", history.KEPT)


def test_secrets_are_not_kept_by_their_name_or_their_schema() -> None:
    schema = {"properties": {"pin": {"format": "password"}, "in": {"properties": {"x": {"writeOnly": True}}}}}
    arguments = {
        "api_key": "1",
        "pin": "2",
        "in": {"x": "3", "password": "4", "y": 5},
        "list": [{"token": "6", "z": 7}],
    }
    kept = history.entry_of(0.0, "tools/call", {"name": "t", "arguments": arguments}, schema).params
    assert kept == {"name": "t", "arguments": {"in": {"y": 5}, "list": [{"z": 7}]}}


def test_what_has_the_shape_of_a_secret_is_not_kept_in_any_text() -> None:
    token = "ghp_" + "a1" * 18
    arguments = {"text": f"log in with {token}", "list": [f"https://me:{token}@example.com/", "plain"], "number": 5}
    kept = history.entry_of(0.0, "tools/call", {"name": "t", "arguments": arguments})
    assert token not in json.dumps(history.document_of({"here": [kept]}))
    assert kept.params == {
        "name": "t",
        "arguments": {
            "text": "log in with [redacted]",
            "list": ["https://me:[redacted]@example.com/", "plain"],
            "number": 5,
        },
    }


def test_what_is_too_long_is_not_kept_and_says_so() -> None:
    kept = entry("t", text="x" * history.MAX_PARAMS_CHARS)
    assert (kept.cut, kept.params) == (True, {"name": "t"})


def test_the_file_is_its_owners_alone_and_what_is_odd_in_it_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "inspector.json"
    assert keeping.load(path) == {}
    assert keeping.save(path, {"here": [entry("t", a=1)]}) == ""
    assert path.stat().st_mode & 0o777 == 0o600
    assert keeping.load(path)["here"][0].params == {"name": "t", "arguments": {"a": 1}}
    document = json.loads(path.read_text())
    document["instances"]["here"] += [None, {"method": 5}, {"method": "x", "at": "y"}, {"method": "x", "params": []}]
    path.write_text(json.dumps(document))
    assert len(keeping.load(path)["here"]) == 1
    for text in ("", "[]", '{"instances": 5}', "{" * 100_000):
        path.write_text(text)
        assert keeping.load(path) == {}


def test_a_history_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in keeping.save(tmp_path / "file" / "inspector.json", {})

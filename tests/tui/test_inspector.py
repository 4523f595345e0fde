"""The inspector, driven by keys: every kind of call, answer, question and failure, against a real server."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import pytest
from textual import events

from tests import servers
from tests.e2e.plane import open_plane
from tests.tui.driving import contexts_of, drive
from tui.inspector import keeping
from tui.panes.inspector import InspectorPane
from tui.widgets.json_tree import JsonTree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.plane import Plane
    from tests.tui.driving import Driver

BARE = b"""
import json, sys
for line in sys.stdin:
    print(json.dumps({"result": {"asked": json.loads(line)["method"]}}), flush=True)
"""
"""Answers everything, and knows nothing of MCP."""
SIZES = ((80, 24), (120, 40), (200, 60))


@pytest.fixture(scope="module")
def inspected() -> Iterator[Plane]:
    """A control plane with the server that has something of everything, and one of each era that asks."""
    with open_plane() as opened:
        opened.start()
        opened.deploy("desk", servers.source("inspected.py"))
        opened.deploy("modern", servers.source("eras.py"), environment_vars={"ERA": "modern"})
        opened.deploy("bare", BARE)
        yield opened


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The history of a test is its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "corral" / "inspector.json"


async def choose(person: Driver, tool: str, instance: str = "desk") -> None:
    """Open the inspector and choose a tool."""
    await person.sees("live", instance)
    await person.command(f"inspect {instance}")
    await person.sees("Send", "tool ")
    await person.press("ctrl+o")
    await person.sees("Call what?")
    await person.type(tool)
    await person.until(lambda: tool in person.line_with("▸"), f"{tool} under the cursor")
    await person.press("enter")
    await person.sees_not("Call what?")
    await person.sees(f"tool {tool}")


def under_cursor(person: Driver, word: str) -> bool:
    return word in person.line_with("▸")


async def call(person: Driver, tool: str, instance: str = "desk") -> None:
    await choose(person, tool, instance)
    await person.press("f5")


def test_a_tool_is_called_from_a_form_of_its_schema(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await choose(person, "greet")
        await person.sees("name *", "whom", "times", "tone", "street *")
        await person.type("ada")
        await person.press("f5")
        await person.sees("✓ result", "hello ada")

    drive(contexts_of(inspected), script)


def test_what_does_not_fit_is_told_beside_its_field_and_sent_when_asked_for_again(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await choose(person, "greet")
        await person.press("f5")
        await person.sees("✗ is required", "F5 once more")
        await person.press("f5")
        await person.sees("✓ result", "hello None")

    drive(contexts_of(inspected), script)


def test_the_form_and_its_json_keep_what_is_entered_both_ways(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await choose(person, "greet")
        await person.type("ada")
        await person.press("ctrl+e")
        await person.sees('"name": "ada"', '"times": 1')
        pane = person.app.screen.query_one(InspectorPane)
        await person.until(lambda: pane.draft.as_json, "JSON")
        person.app.screen.query_one("#json").text = '{"name": 7, "times": 2, "extra": [1]}'  # type: ignore[attr-defined]
        await person.pilot.pause()
        await person.press("ctrl+e")
        await person.sees("other members", "JSON —")
        await person.press("ctrl+e")
        await person.sees('"name": 7', '"extra": [')

    drive(contexts_of(inspected), script)


def test_typing_in_a_form_triggers_no_other_key(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await choose(person, "greet")
        await person.type("q1r/:s")
        await person.press("f5")
        await person.sees("hello q1r/:s")

    drive(contexts_of(inspected), script)


def test_keys_that_come_all_at_once_are_taken_in_their_order(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await choose(person, "greet")
        for letter in "grace":
            person.app.post_message(events.Key(letter, letter))
        person.app.post_message(events.Key("f5", None))
        await person.sees("✓ result", "hello grace")

    drive(contexts_of(inspected), script)


def test_a_server_that_knows_nothing_of_mcp_is_asked_all_the_same(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("live", "bare")
        await person.command("inspect bare")
        await person.sees("choose what to call")
        await person.press("enter")
        await person.sees("Call what?", "raw")
        await person.press("enter")
        await person.sees("JSON-RPC")
        await person.type("weather/today")
        await person.press("f5")
        await person.sees("✓ result", '"asked": "weather/today"')

    drive(contexts_of(inspected), script)


def test_an_elicitation_is_a_form_and_its_answer_reaches_the_tool(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await call(person, "ask")
        await person.sees("desk asks you", "What is the word?", "word *")
        await person.type("sesame")
        await person.press("f5")
        await person.sees("✓ result", "sesame", "accept", "2 rounds")

    drive(contexts_of(inspected), script)


@pytest.mark.parametrize(("key", "action"), [("ctrl+n", "decline"), ("escape", "cancel")])
def test_an_elicitation_can_be_declined_and_cancelled(inspected: Plane, key: str, action: str) -> None:
    async def script(person: Driver) -> None:
        await call(person, "ask")
        await person.sees("What is the word?")
        await person.press(key)
        await person.sees("✓ result", action)

    drive(contexts_of(inspected), script)


def test_sampling_shows_the_messages_and_sends_what_the_person_types(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await call(person, "sample")
        await person.sees("you are the model", "How deep is the sea?")
        await person.type("very")
        await person.press("f5")
        await person.sees("✓ result", '"text": "very"')

    drive(contexts_of(inspected), script)


def test_a_model_that_does_not_answer_gives_the_call_up(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await call(person, "sample")
        await person.sees("How deep is the sea?")
        await person.press("escape")
        await person.sees("you did not answer what it asked")

    drive(contexts_of(inspected), script)


def test_roots_are_what_the_person_lists(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await call(person, "roots")
        await person.sees("which folders it may know of")
        await person.type("file:///here")
        await person.press("f5")
        await person.sees("✓ result", "file:///here")

    drive(contexts_of(inspected), script)


@pytest.mark.parametrize("method", ["elicitation/create", "sampling/createMessage", "roots/list"])
def test_a_modern_server_asks_in_the_same_way(inspected: Plane, method: str) -> None:
    async def script(person: Driver) -> None:
        await choose(person, "ask", "modern")
        await person.press("ctrl+e")
        await person.until(lambda: person.app.screen.query_one(InspectorPane).draft.as_json, "JSON")
        arguments = json.dumps({"nonce": "n1", "method": method})
        person.app.screen.query_one("#json").text = arguments  # type: ignore[attr-defined]
        await person.pilot.pause()
        await person.press("f5")
        await person.sees("modern asks")
        await person.press("f5")
        await person.sees("✓ result", "n1 got", "2 rounds")

    drive(contexts_of(inspected), script)


def test_progress_and_logs_are_seen_as_they_arrive_and_a_cancelled_call_is_over(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await call(person, "wait")
        await person.sees("waiting", "2 of 4", "step 2", "warning log line 2")
        await person.press("ctrl+x")
        await person.sees("cancelled after")
        await person.sees_not("waiting")
        await choose(person, "steps")  # which goes on once the server was told
        await person.press("f5")
        await person.sees("✓ result", "all steps done", "▕████████████░░░░░░░░░░░░▏ 2 of 4")

    drive(contexts_of(inspected), script)


def test_a_result_of_a_megabyte_is_shown_in_every_view(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await call(person, "big")
        await person.sees("✓ result", "1.0 MB", "xxxxxxxx")
        await person.press("ctrl+t")
        await person.sees("[raw]")
        await person.press("ctrl+t")
        await person.sees("[tree]", "structuredContent: {1}", "numbers: [1000]")
        tree = person.app.screen.query_one(InspectorPane).query_one(JsonTree)
        tree.focus()
        at = next(n for n, line in enumerate(tree.outline.lines) if line.label == "numbers")
        tree._move_to(at)
        await person.press("enter", "end")
        await person.sees("… 900 more")
        await person.press("enter", "end")
        await person.sees("… 800 more")

    drive(contexts_of(inspected), script)


def test_images_are_told_by_their_facts_and_markdown_is_laid_out(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await call(person, "picture")
        await person.sees("PNG, 320 × 200 pixels", "image/png")
        await choose(person, "page")
        await person.press("f5")
        await person.sees("A heading", "one bold item", "link")

    drive(contexts_of(inspected), script)


def test_failures_say_whose_they_are(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await call(person, "fail")
        await person.sees("the tool says that it failed", "it did not work")
        await choose(person, "refuse")
        await person.press("f5")
        await person.sees("the server's JSON-RPC error", "not on a Monday")
        await choose(person, "crash")
        await person.press("f5")
        await person.sees("✗ Corral:", "the disk is full")

    drive(contexts_of(inspected), script)


def test_hostile_schemas_and_results_are_shown_and_not_obeyed(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await choose(person, "hostile")
        await person.sees("\\x1b[31mred", "is not there", "p0  string")
        await person.press("f5", "f5")
        await person.sees("✓ result")
        await choose(person, "escape")
        await person.press("f5")
        await person.sees("\\x1b[2Jgone \\u202eback")

    drive(contexts_of(inspected), script)


def test_prompts_resources_and_raw_requests_are_sent_as_well(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("live", "desk")
        await person.command("inspect desk")
        await person.sees("tool ")
        for word, seen, typed, answer in (
            ("poem", "prompt poem", "rain", "A poem on rain"),
            ("one", "resource note://one", "", "content of note://one"),
        ):
            await person.press("ctrl+o")
            await person.sees("Call what?")
            await person.type(word)
            await person.until(partial(under_cursor, person, word), "the row")
            await person.press("enter")
            await person.sees(seen)
            await person.type(typed)
            await person.press("f5")
            await person.sees("✓ result", answer)
        await person.press("ctrl+o")
        await person.type("json")
        await person.press("enter")
        await person.sees("JSON-RPC")
        await person.type("tools/li")
        await person.press("right")  # the completion
        await person.press("f5")
        await person.sees("✓ result", '"name": "greet"')

    drive(contexts_of(inspected), script)


def test_history_is_kept_without_secrets_repeated_and_saved_under_a_name(inspected: Plane, state: Path) -> None:
    async def script(person: Driver) -> None:
        await choose(person, "login")
        await person.type("ada")
        await person.press("tab")
        await person.type("hunter2")
        await person.press("f5")
        await person.sees("✓ result", "hunter2")
        await person.until(state.exists, "the file")
        await person.press("ctrl+l")
        await person.sees("Sent to desk", "login")
        await person.press("ctrl+n")
        await person.sees("Save this request as")
        await person.type("door")
        await person.press("enter")
        await person.sees_not("Save this request as")
        await person.sees("door")
        await person.press("f5")
        await person.sees_not("Sent to desk")
        await person.sees("✓ result")
        await person.sees_not("hunter2")

    drive(contexts_of(inspected), script)
    assert "hunter2" not in state.read_text()
    assert state.stat().st_mode & 0o777 == 0o600
    [entries] = keeping.load(state).values()
    assert (entries[0].name, entries[0].params) == ("door", {"name": "login", "arguments": {"user": "ada"}})


def test_a_request_is_copied_as_a_command_that_works_and_never_holds_the_token(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await choose(person, "greet")
        await person.type("ada")
        for downs in (0, 1, 2):
            await person.press("ctrl+y")
            await person.sees("the request as curl")
            await person.press(*["down"] * downs, "enter")
            await person.sees("is in the clipboard")
            await person.until(lambda: person.app.clipboard, "something copied")
            assert inspected.token not in person.app.clipboard
            assert "CORRAL_TOKEN" in person.app.clipboard or "corral call desk" in person.app.clipboard

    drive(contexts_of(inspected), script)


def test_a_read_only_context_refuses_to_send(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await choose_read_only(person)
        await person.press("f5")
        await person.sees("read-only: nothing is sent from here")
        assert person.app.screen.query_one(InspectorPane).draft.outcome is None

    async def choose_read_only(person: Driver) -> None:
        await person.sees("live", "desk")
        await person.command("inspect desk")
        await person.sees("greet")

    drive(contexts_of(inspected, read_only=True), script)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_entered_survives_the_screen_in_every_size(inspected: Plane, size: tuple[int, int]) -> None:
    async def script(person: Driver) -> None:
        await choose(person, "greet")
        await person.type("grace")
        await person.press("f5")
        await person.sees("hello grace")
        await person.press("escape", "escape")
        await person.sees("modern", "desk")
        await person.command("inspect desk")
        await person.sees("grace", "hello grace")

    drive(contexts_of(inspected), script, size=size)


def test_while_a_field_has_the_keyboard_the_foot_tells_the_way_out_and_f1_lists_the_keys(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await choose(person, "greet")
        await person.sees("^l History", "esc Back", "F1 Keys")
        await person.press("question_mark", "f1")
        await person.sees("esc closes", "Move cursor left")
        await person.press("f1")
        await person.sees_not("esc closes")
        await person.press("f5")
        await person.sees("at least 2 are wanted")
        await person.press("escape")
        await person.sees("? Keys")
        assert "F1 Keys" not in person.text()

    drive(contexts_of(inspected), script, size=(80, 24))


def test_tab_waits_its_turn_among_keys_that_come_all_at_once(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await choose(person, "login")
        for name, character in (("4", "4"), ("tab", "\t"), ("5", "5"), ("shift+tab", None), ("6", "6"), ("f5", None)):
            person.app.post_message(events.Key(name, character))
        await person.sees("✓ result", '"user": "46"', '"password": "5"')

    drive(contexts_of(inspected), script)


def test_a_result_says_which_tool_it_is_of_when_another_is_chosen(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await call(person, "picture")
        await person.sees("picture ✓ result")
        await choose(person, "page")
        await person.sees("tool page", "picture ✓ result")

    drive(contexts_of(inspected), script)


def test_a_question_says_what_escape_does_and_names_each_way_out_once(inspected: Plane) -> None:
    async def script(person: Driver) -> None:
        await call(person, "ask")
        await person.sees("What is the word?", "Cancel the call (ctrl+x)", "esc cancels the question", "F1 keys")
        await person.press("f1")
        await person.sees("Cancel the question")
        await person.press("escape")
        await person.sees_not("esc closes")
        await person.press("ctrl+x")
        await person.sees("so the call was cancelled")

    drive(contexts_of(inspected), script, size=(80, 60))

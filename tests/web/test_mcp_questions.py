"""Questions of servers to a client: each is answered once, in the session that it was asked in."""

from __future__ import annotations

import json

import pytest

from controlplane.web.mcp.questions import OPEN_MAX, Questions, TooManyQuestions


def raw(own_id: str) -> bytes:
    return json.dumps(own_id).encode()


def test_a_question_goes_out_under_an_own_id_with_its_params_as_they_were() -> None:
    own_id, message = Questions().ask("lane 1", "sampling/createMessage", b'{"maxTokens": 1e2, "x":\r\n[1.0]}')

    assert b"\n" not in message
    assert b"\r" not in message
    assert b'"maxTokens": 1e2' in message
    assert json.loads(message) == {
        "jsonrpc": "2.0",
        "id": own_id,
        "method": "sampling/createMessage",
        "params": {"maxTokens": 100.0, "x": [1.0]},
    }


def test_a_question_without_params_has_none() -> None:
    own_id, message = Questions().ask("lane 1", "roots/list", None)

    assert json.loads(message) == {"jsonrpc": "2.0", "id": own_id, "method": "roots/list"}


def test_an_answer_finds_who_asked_once() -> None:
    questions = Questions()
    first, _ = questions.ask("lane 1", "roots/list", None)
    second, _ = questions.ask("lane 2", "roots/list", None)

    assert questions.answered(raw(second)) == "lane 2"
    assert questions.answered(raw(second)) is None
    assert questions.answered(raw(first)) == "lane 1"


def test_an_id_counts_by_its_value_not_by_how_json_spells_it() -> None:
    questions = Questions()
    own_id, _ = questions.ask("lane 1", "roots/list", None)

    assert questions.answered(raw(own_id).replace(b"-", b"\\u002d")) == "lane 1"


@pytest.mark.parametrize("raw_id", [b"1", b"null", b'"corral-1"', b'"', b"", b"{}", b"[1]", b"\xff", b"1e400"])
def test_an_id_that_was_not_given_out_is_nobodys(raw_id: bytes) -> None:
    questions = Questions()
    questions.ask("lane 1", "roots/list", None)

    assert questions.answered(raw_id) is None
    assert len(questions) == 1


def test_ids_of_another_session_never_match() -> None:
    ours, theirs = Questions(), Questions()
    own_id, _ = ours.ask("ours", "roots/list", None)
    theirs.ask("theirs", "roots/list", None)

    assert theirs.answered(raw(own_id)) is None
    assert ours.answered(raw(own_id)) == "ours"


def test_a_withdrawn_question_is_not_answered_any_more() -> None:
    questions = Questions()
    own_id, _ = questions.ask("lane 1", "roots/list", None)

    assert questions.withdraw(own_id) == "lane 1"
    assert questions.withdraw(own_id) is None
    assert questions.answered(raw(own_id)) is None


def test_the_table_is_bounded_until_something_is_answered() -> None:
    questions = Questions()
    ids = [questions.ask(number, "roots/list", None)[0] for number in range(1, OPEN_MAX + 1)]
    with pytest.raises(TooManyQuestions):
        questions.ask("one more", "roots/list", None)

    assert questions.answered(raw(ids[0])) == 1
    again, _ = questions.ask("one more", "roots/list", None)

    assert again not in ids


def test_closing_tells_who_still_waits() -> None:
    questions = Questions()
    ids = [questions.ask(name, "roots/list", None)[0] for name in ("a", "b", "c")]
    questions.answered(raw(ids[1]))

    assert questions.close() == ["a", "c"]
    assert questions.close() == []
    assert questions.answered(raw(ids[0])) is None

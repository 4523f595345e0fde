"""The rounds in which a modern server asks a legacy client for input."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controlplane.protocol.input_rounds import (
    EMPTY_ROUND_PAUSE_MAX_S,
    MAX_REQUESTS,
    MAX_ROUNDS,
    Ask,
    Final,
    InputRequest,
    InputRounds,
)

PARAMS = b'{"_meta":{"k":1E2},"name":"t","arguments":{"n":1.0}}'
EVERYTHING = frozenset({"roots", "sampling", "elicitation.form", "elicitation.url"})
FORM = b'{ "message":"?","requestedSchema":{"minimum":1E2}}'
TOO_DEEP = b"[" * 50_000 + b"]" * 50_000


def rounds(capabilities: frozenset[str] = EVERYTHING, params: bytes | None = PARAMS) -> InputRounds:
    return InputRounds(params, capabilities)


def asking(requests: bytes | None, state: bytes | None = None) -> bytes:
    parts = [b'"resultType":"input_required"']
    parts += [] if requests is None else [b'"inputRequests":' + requests]
    parts += [] if state is None else [b'"requestState":' + state]
    return b'"result":{' + b",".join(parts) + b"}"


def one(method: str, params: bytes | None = None, key: str = "k") -> bytes:
    tail = b"" if params is None else b',"params":' + params
    return asking(b'{"%b":{"method":"%b"%b}}' % (key.encode(), method.encode(), tail))


def error_of(step: Any) -> Any:
    assert isinstance(step, Final)
    name, _, raw = step.member.partition(b":")
    assert name == b'"error"'
    return json.loads(raw)


# -- answers that end the call


@pytest.mark.parametrize(
    "member",
    [
        b'"result":{"resultType":"complete","content":[]}',
        b'"result":{"content":[{"text":"input_required"}]}',
        b'"result":{"resultType":"task","input_required":1}',
        b'"result":{"content":{"resultType":"input_required"}}',
        b'"result":[]',
        b'"result":null',
        b'"error":{"code":1,"message":"resultType input_required"}',
        b'"result":{"resultType":"input_required","x":' + TOO_DEEP + b"}",
    ],
)
def test_an_answer_that_asks_for_nothing_is_final_and_untouched(member: bytes) -> None:
    assert rounds().on_result(member) == Final(member)


# -- one round


def test_the_client_is_asked_what_the_server_asks_in_the_servers_words() -> None:
    ask = rounds().on_result(
        asking(b'{"a":{"method":"elicitation/create","params":' + FORM + b'},"b":{"method":"roots/list"}}', b'"s"')
    )

    assert ask == Ask((InputRequest("a", "elicitation/create", FORM), InputRequest("b", "roots/list", None)))


def test_the_retry_is_the_same_request_with_answers_and_the_exact_state() -> None:
    call = rounds()
    call.on_result(
        asking(
            b'{"a":{"method":"elicitation/create","params":{}},"b":{"method":"sampling/createMessage","params":{}}}',
            b'"s\\u00e4\\/"',
        )
    )

    assert not call.is_answered
    assert call.answer("b", b'"result":{"role":"assistant","n":1E2}') is None
    assert not call.is_answered
    assert call.answer("a", b'"result":{ "action":"decline"}') is None
    assert call.is_answered
    retry = call.retry_params()
    assert json.loads(retry) == json.loads(PARAMS) | {
        "inputResponses": {"a": {"action": "decline"}, "b": {"role": "assistant", "n": 100.0}},
        "requestState": "s\u00e4/",
    }
    for piece in (b'{"k":1E2}', b'{"n":1.0}', b'{ "action":"decline"}', b'"n":1E2}', b'"s\\u00e4\\/"'):
        assert piece in retry


@pytest.mark.parametrize("params", [None, b"null", b"{}", b'{"requestState":"mine","inputResponses":5}'])
def test_the_retry_needs_no_parameters_to_begin_with(params: bytes | None) -> None:
    call = rounds(params=params)
    call.on_result(one("roots/list"))
    call.answer("k", b'"result":{"roots":[]}')

    retry = json.loads(call.retry_params())

    assert retry["inputResponses"] == {"k": {"roots": []}}
    assert retry.get("requestState", "mine") == "mine"


def test_parameters_too_deep_to_be_read_are_retried_all_the_same() -> None:
    call = rounds(params=b'{"a":' + TOO_DEEP + b"}")
    call.on_result(asking(None, b'"s"'))

    assert call.retry_params() == b'{"requestState":"s","a":' + TOO_DEEP + b"}"


def test_a_result_with_only_a_state_is_retried_after_a_pause_that_grows() -> None:
    call = rounds()
    pauses = []

    for number in range(MAX_ROUNDS):
        ask = call.on_result(asking(b"{}" if number % 2 else None, b'"s"'))
        assert isinstance(ask, Ask)
        assert not ask.requests
        pauses.append(ask.pause_s)
        assert call.is_answered
        assert json.loads(call.retry_params()) == json.loads(PARAMS) | {"requestState": "s"}

    assert pauses[:3] == [0.05, 0.1, 0.2]
    assert pauses[-1] == EMPTY_ROUND_PAUSE_MAX_S
    assert pauses == sorted(pauses)


def test_a_round_without_a_state_is_retried_without_one() -> None:
    call = rounds()
    call.on_result(asking(None, b'"first"'))
    call.on_result(one("roots/list"))
    call.answer("k", b'"result":{}')

    assert json.loads(call.retry_params()) == json.loads(PARAMS) | {"inputResponses": {"k": {}}}


def test_each_retry_brings_the_answers_of_its_own_round() -> None:
    call = rounds()
    for key in ("a", "b"):
        call.on_result(one("roots/list", key=key))
        assert not call.is_answered
        call.answer(key, b'"result":{}')
        assert json.loads(call.retry_params())["inputResponses"] == {key: {}}


def test_answers_to_nothing_and_second_answers_are_ignored() -> None:
    call = rounds()
    call.on_result(one("sampling/createMessage", b"{}"))
    call.answer("other", b'"error":{"code":1}')
    call.answer("k", b'"result":{"n":1}')

    assert call.answer("k", b'"result":{"n":2}') is None
    assert call.answer("k", b'"error":{"code":1,"message":"late"}') is None
    assert json.loads(call.retry_params())["inputResponses"] == {"k": {"n": 1}}


# -- URL elicitation


def test_a_url_elicitation_gets_the_id_that_legacy_clients_demand() -> None:
    params = b'{"mode":"url","message":"m","url":"https://x/1"}'
    other = b'{"mode":"url","message":"m","url":"https://x/2"}'

    asked = [rounds().on_result(one("elicitation/create", given)) for given in (params, params, other)]

    ids = []
    for ask in asked:
        assert isinstance(ask, Ask)
        ids.append(json.loads(ask.requests[0].params or b"")["elicitationId"])
    assert ids[0] == ids[1] != ids[2]
    assert len(ids[0]) == 32


def test_an_id_that_the_server_gave_is_kept() -> None:
    params = b'{"mode":"url","url":"https://x","elicitationId":"mine"}'

    ask = rounds().on_result(one("elicitation/create", params))

    assert ask == Ask((InputRequest("k", "elicitation/create", params),))


# -- what the client did not declare


@pytest.mark.parametrize(
    ("method", "params", "declared", "sentence"),
    [
        ("roots/list", None, set(), "roots/list, but the client did not declare roots"),
        ("sampling/createMessage", b"{}", {"roots"}, "did not declare sampling"),
        ("sampling/createMessage", b'{"tools":[]}', {"sampling"}, "did not declare sampling.tools"),
        ("elicitation/create", b"{}", {"elicitation.url"}, "did not declare elicitation.form"),
        ("elicitation/create", b'{"mode":"url"}', {"elicitation.form"}, "did not declare elicitation.url"),
        ("elicitation/create", b'{"mode":"voice"}', EVERYTHING, "did not declare elicitation.voice"),
        ("tools/call", b"{}", EVERYTHING, "tools/call, which is nothing that a client can be asked"),
    ],
)
def test_a_server_that_asks_for_what_was_not_declared_ends_the_call(
    method: str, params: bytes | None, declared: set[str], sentence: str
) -> None:
    error = error_of(rounds(frozenset(declared)).on_result(one(method, params)))

    assert error["code"] == -32603
    assert sentence in error["message"]


def test_of_several_requests_one_undeclared_one_ends_the_call() -> None:
    step = rounds(frozenset({"roots"})).on_result(
        asking(b'{"a":{"method":"roots/list"},"b":{"method":"elicitation/create","params":{}}}')
    )

    assert "elicitation.form" in error_of(step)["message"]


# -- servers that do not keep to the form


@pytest.mark.parametrize(
    "member",
    [
        asking(None),
        asking(b"{}"),
        asking(b"null", b"null"),
        asking(b"[]", b'"s"'),
        asking(b'"x"'),
        asking(b"5", b'"s"'),
        asking(b'{"a":5}'),
        asking(b'{"a":{"params":{}}}'),
        asking(b'{"a":{"method":7}}'),
    ],
)
def test_a_request_for_nothing_in_particular_ends_the_call(member: bytes) -> None:
    assert error_of(rounds().on_result(member))["code"] == -32603


def test_a_server_that_never_comes_to_an_end_is_given_up() -> None:
    call = rounds()
    for _ in range(MAX_ROUNDS):
        assert isinstance(call.on_result(asking(None, b'"s"')), Ask)

    error = error_of(call.on_result(asking(None, b'"s"')))

    assert error == {"code": -32603, "message": "the server asked for input 10 times without coming to an end"}


def test_more_requests_at_once_than_a_client_can_be_asked_end_the_call() -> None:
    def many(count: int) -> bytes:
        return asking(json.dumps({str(n): {"method": "roots/list"} for n in range(count)}).encode())

    assert isinstance(rounds().on_result(many(MAX_REQUESTS)), Ask)
    assert "33 inputs at once" in error_of(rounds().on_result(many(MAX_REQUESTS + 1)))["message"]


# -- clients that answer with an error


@pytest.mark.parametrize("member", [b'"error":{"code":-1,"message":"no"}', b'"result":null', b'"result":[]'])
def test_an_elicitation_that_failed_is_one_that_was_cancelled(member: bytes) -> None:
    call = rounds()
    call.on_result(one("elicitation/create", FORM))

    assert call.answer("k", member) is None
    assert call.is_answered
    assert json.loads(call.retry_params())["inputResponses"] == {"k": {"action": "cancel"}}


@pytest.mark.parametrize("method", ["sampling/createMessage", "roots/list"])
def test_sampling_and_roots_that_failed_end_the_call_with_the_clients_own_error(method: str) -> None:
    call = rounds()
    call.on_result(one(method, b"{}"))

    step = call.answer("k", b'"error":{"code":-1,"message":"User rejected it","data":1E2}')

    assert isinstance(step, Final)
    assert error_of(step) == {
        "code": -32603,
        "message": f"the client did not answer the server's {method}",
        "data": {"method": method, "error": {"code": -1, "message": "User rejected it", "data": 100.0}},
    }
    assert b'{"code":-1,"message":"User rejected it","data":1E2}' in step.member


def test_sampling_that_was_answered_with_no_object_ends_the_call() -> None:
    call = rounds()
    call.on_result(one("sampling/createMessage", b"{}"))

    assert error_of(call.answer("k", b'"result":"hello"'))["data"] == {"method": "sampling/createMessage"}

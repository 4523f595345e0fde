"""Calls and answers over real pipes, with a scripted server on the other side."""

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
import trio

from controlplane.core.jsonrpc import encode
from controlplane.errors import BadChildMessage, Busy, CallTimeout, InstanceCrashed, PayloadTooLarge
from controlplane.protocol.session import MAX_MESSAGE_BYTES
from tests.protocol.conftest import WAIT_S, Talk, drain, open_talk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.protocol.pending import Call

ODD_VALUES = b'{"a":-0,"b":1e308,"c":9223372036854775808,"d":1.0,"e":[1E2 , "\\ud83d"]}'


@pytest.fixture
async def legacy() -> AsyncIterator[Talk]:
    """A session with a legacy server, after its handshake."""
    async with open_talk() as talk:
        await talk.shake_hands("legacy")
        yield talk


@pytest.fixture
async def modern() -> AsyncIterator[Talk]:
    async with open_talk() as talk:
        await talk.shake_hands("modern")
        yield talk


async def settled() -> None:
    with trio.fail_after(WAIT_S):
        await trio.testing.wait_all_tasks_blocked()


# -- answers


async def test_a_call_is_one_line_and_its_answer_comes_back_as_it_was_written(legacy: Talk) -> None:
    call = await legacy.start("tools/call", b'{"name":"x",\n"arguments":' + ODD_VALUES + b"}")

    line = await legacy.peer.line()
    request = json.loads(line)
    assert request["method"] == "tools/call"
    assert b'"params":{"name":"x", "arguments":' + ODD_VALUES + b"}" in line
    await legacy.peer.say(b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (request["id"], ODD_VALUES))

    await call.result()
    assert call.member == b'"result":' + ODD_VALUES
    assert legacy.peer.heard_nothing()


async def test_an_error_is_a_value_that_passes_through(legacy: Talk) -> None:
    call = await legacy.start("no/such")
    request = await legacy.peer.hear()
    assert "params" not in request
    await legacy.peer.say(b'{"jsonrpc":"2.0","id":%d,"error":{"code": -32601, "x": 1.0}}' % request["id"])

    with trio.fail_after(WAIT_S):
        while not call.is_over:
            await settled()
    assert call.member == b'"error":{"code": -32601, "x": 1.0}'


async def test_answers_find_their_calls_in_any_order(legacy: Talk) -> None:
    calls = [await legacy.start("m", encode({"n": n})) for n in range(20)]
    requests = [await legacy.peer.hear() for _ in calls]
    assert len({request["id"] for request in requests}) == 20

    for request in reversed(requests):
        await legacy.peer.answer(request, {"echo": request["params"]["n"]})

    assert [(await call.result())["echo"] for call in calls] == list(range(20))


@pytest.mark.parametrize("form", ['"%d"', "%d.0", "%de0"])
async def test_an_id_that_is_echoed_in_another_form_is_known_again(legacy: Talk, form: str) -> None:
    call = await legacy.start("m")
    request = await legacy.peer.hear()
    await legacy.peer.say('{"id":' + form % request["id"] + ',"result":{"ok":1}}')

    assert await call.result() == {"ok": 1}


async def test_an_answer_may_come_in_crumbs_or_with_others_in_one_piece(legacy: Talk) -> None:
    one, two = await legacy.start("m"), await legacy.start("m")
    ids = [(await legacy.peer.hear())["id"] for _ in range(2)]
    data = b"".join(b'{"id":%d,"result":{"n":%d}}\r\n' % (n, n) for n in ids)
    for start in range(0, len(data), 7):
        await legacy.peer.write(data[start : start + 7])
        await settled()

    assert [await one.result(), await two.result()] == [{"n": n} for n in ids]


async def test_answers_to_nobody_are_counted_and_dropped(legacy: Talk) -> None:
    call = await legacy.start("m")
    request = await legacy.peer.hear()
    for raw_id in (b"1", b"2", b"99999", b'"x"', b"null", b"{}", b"1" * 50):
        await legacy.peer.say(b'{"id":' + raw_id + b',"result":{"wrong":1}}')
    await legacy.peer.say(b'{"result":{"wrong":1}}')
    await legacy.peer.answer(request, {"right": 1})

    assert await call.result() == {"right": 1}
    assert legacy.session.pending.late == 7


async def test_large_messages_pass_both_ways(legacy: Talk) -> None:
    text = "x" * (4 * 2**20)
    call = await legacy.start("m", encode({"text": text}))

    request = await legacy.peer.hear()
    assert request["params"]["text"] == text
    await legacy.peer.answer(request, {"text": text})

    assert await call.result() == {"text": text}


async def test_a_broken_answer_fails_its_own_call_at_once_and_no_other(legacy: Talk) -> None:
    broken, fine = await legacy.start("m"), await legacy.start("m")
    first, second = [await legacy.peer.hear() for _ in range(2)]
    await legacy.peer.say(b'{"jsonrpc": "2.0", "id": %d, "result": {"mean": NaN}}' % first["id"])
    await legacy.peer.answer(second, {"ok": 1})

    assert isinstance(await broken.failure(), BadChildMessage)
    assert await fine.result() == {"ok": 1}
    assert len(legacy.ears.noise) == 1


async def test_noise_on_stdout_is_told_and_disturbs_nothing(legacy: Talk) -> None:
    call = await legacy.start("m")
    request = await legacy.peer.hear()
    noise = [b"Listening on port 3000", b'{"level":"warn","error":"slow"}', b"\xff\xfe", b"[1,2]"]
    for line in noise:
        await legacy.peer.say(line)
    await legacy.peer.answer(request)

    await call.result()
    assert legacy.ears.noise == noise
    assert legacy.session.last_frames == noise


async def test_an_over_long_line_fails_those_who_wait_and_the_session_goes_on(legacy: Talk) -> None:
    calls = [await legacy.start("m"), await legacy.start("m")]
    for _ in calls:
        await legacy.peer.hear()
    size = MAX_MESSAGE_BYTES + 1
    await legacy.peer.write(b"x" * size + b"\n")

    for call in calls:
        error = await call.failure()
        assert isinstance(error, BadChildMessage)
        assert str(size) in str(error)
    assert legacy.ears.oversized == [size]
    again = await legacy.start("m")
    await legacy.peer.answer(await legacy.peer.hear(), {"ok": 1})
    assert await again.result() == {"ok": 1}


# -- calls that end without an answer


async def test_a_call_times_out_at_its_limit_and_the_server_is_told(
    legacy: Talk, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    call = await legacy.start("slow", timeout_s=2.0)
    request = await legacy.peer.hear()

    error = await call.failure()

    assert isinstance(error, CallTimeout)
    assert str(error) == "no answer to slow within 2 s"
    assert 2.0 <= trio.current_time() - began <= 2.2
    assert await legacy.peer.hear() == {
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": {"requestId": request["id"], "reason": "timed out"},
    }


async def test_a_late_answer_goes_to_nobody(legacy: Talk, autojump_clock: trio.testing.MockClock) -> None:
    slow = await legacy.start("slow", timeout_s=1.0)
    late = await legacy.peer.hear()
    await slow.failure()
    await legacy.peer.hear()

    quick = await legacy.start("quick")
    request = await legacy.peer.hear()
    await legacy.peer.answer(late, {"for": "nobody"})
    await legacy.peer.answer(request, {"for": "quick"})

    assert await quick.result() == {"for": "quick"}
    assert legacy.session.pending.late == 1
    assert not legacy.session.broken.is_set()


async def test_quick_calls_are_answered_while_a_slow_one_waits(legacy: Talk) -> None:
    slow = await legacy.start("slow")
    held = await legacy.peer.hear()
    for number in range(5):
        quick = await legacy.start("quick")
        await legacy.peer.answer(await legacy.peer.hear(), {"n": number})
        assert await quick.result() == {"n": number}

    assert not slow.is_over
    await legacy.peer.answer(held)
    await slow.result()


async def test_a_cancelled_caller_takes_its_call_along(legacy: Talk) -> None:
    call = await legacy.start("m")
    request = await legacy.peer.hear()
    call.scope.cancel()

    told = await legacy.peer.hear()
    assert (told["method"], told["params"]["requestId"]) == ("notifications/cancelled", request["id"])
    assert len(legacy.session.pending) == 0


async def test_a_caller_that_hung_up_is_noticed_within_a_second(
    legacy: Talk, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    call = await legacy.start("m", timeout_s=60.0, is_gone=lambda: True)
    await legacy.peer.hear()

    assert isinstance(await call.failure(), CallTimeout)
    assert trio.current_time() - began < 1.0
    assert (await legacy.peer.hear())["params"]["reason"] == "the caller went away"


async def test_no_task_wakes_while_nothing_waits(legacy: Talk, autojump_clock: trio.testing.MockClock) -> None:
    call = await legacy.start("m")
    await legacy.peer.answer(await legacy.peer.hear())
    await call.result()
    with trio.move_on_after(3600):
        await trio.sleep_forever()
    ticks = trio.lowlevel.current_statistics().seconds_to_next_deadline

    assert ticks == float("inf")


async def test_nothing_wakes_for_a_subscription_of_corrals_own(
    modern: Talk, autojump_clock: trio.testing.MockClock
) -> None:
    await modern.session.open("subscriptions/listen", b"{}", timeout_s=inf, asker=None, logs=False)
    await modern.peer.hear()
    with trio.move_on_after(3600):
        await trio.sleep_forever()
    assert trio.lowlevel.current_statistics().seconds_to_next_deadline == inf

    call = await modern.start("m", timeout_s=1.0)  # beside it, limits hold as ever
    assert isinstance(await call.failure(), CallTimeout)


# -- the end


async def test_when_stdout_ends_the_conversation_is_broken_and_its_owner_says_what_callers_hear(legacy: Talk) -> None:
    calls = [await legacy.start("m") for _ in range(6)]
    for _ in calls:
        await legacy.peer.hear()
    await legacy.peer.write(b'{"jsonrpc":"2.0","id":17,"result":{"half":')
    legacy.peer.stdout.close_writes()
    with trio.fail_after(WAIT_S):
        await legacy.session.broken.wait()
    assert legacy.session.broken_reason == "the server closed its stdout"
    assert not any(call.is_over for call in calls)

    legacy.session.fail_pending(lambda: InstanceCrashed("killed by SIGKILL"))

    for call in calls:
        error = await call.failure()
        assert isinstance(error, InstanceCrashed)
        assert str(error) == "killed by SIGKILL"
    assert str(await (await legacy.start("m")).failure()) == "killed by SIGKILL"


async def test_a_last_line_without_its_end_is_an_answer_all_the_same(legacy: Talk) -> None:
    call = await legacy.start("m")
    request = await legacy.peer.hear()
    await legacy.peer.write(b'{"id":%d,"result":{"last":1}}' % request["id"])
    legacy.peer.stdout.close_writes()

    assert await call.result() == {"last": 1}


async def test_a_closed_stdin_breaks_the_conversation(legacy: Talk) -> None:
    legacy.peer.stdin.close_reads()

    assert isinstance(await (await legacy.start("m")).failure(), InstanceCrashed)

    assert legacy.session.broken.is_set()
    assert legacy.session.broken_reason == "the server closed its stdin"
    assert len(legacy.session.pending) == 0


async def test_a_server_that_does_not_read_costs_its_own_callers_a_refusal(legacy: Talk) -> None:
    params = encode({"text": "x" * 2**20})
    waiting = []
    for _ in range(12):
        waiting.append(await legacy.start("m", params))
        await settled()

    refused = [call for call in waiting if call.is_over]
    assert len(refused) >= 3
    for call in refused:
        error = await call.failure()
        assert isinstance(error, Busy)
        assert error.retry_after_s == 1
    assert legacy.session.outbox.queued_bytes <= 8 * 2**20
    assert len(legacy.session.pending) == len(waiting) - len(refused)


async def test_what_a_server_did_not_read_it_gets_whole_when_it_reads_again(legacy: Talk) -> None:
    calls = [await legacy.start("m", encode({"n": n, "text": "x" * 2**18})) for n in range(10)]
    await settled()

    for number in range(10):
        request = await legacy.peer.hear()
        assert request["params"]["n"] == number
        await legacy.peer.answer(request, {"n": number})

    assert [(await call.result())["n"] for call in calls] == list(range(10))


async def test_a_call_larger_than_what_may_wait_is_refused_and_leaves_nothing(legacy: Talk) -> None:
    call = await legacy.start("m", b'"' + b"x" * (8 * 2**20) + b'"')

    assert isinstance(await call.failure(), PayloadTooLarge)
    assert len(legacy.session.pending) == 0
    assert legacy.peer.heard_nothing()


async def test_a_method_that_is_no_text_is_sent_as_it_is(legacy: Talk) -> None:
    call = await legacy.start('a\n"\ud800')
    request = await legacy.peer.hear()
    assert request["method"] == 'a\n"\ud800'
    await legacy.peer.answer(request)
    await call.result()


# -- what the server says by itself


async def test_the_servers_own_requests_are_answered_and_never_taken_for_answers(legacy: Talk) -> None:
    call = await legacy.start("m")
    request = await legacy.peer.hear()
    await legacy.peer.say({"jsonrpc": "2.0", "id": request["id"], "method": "ping"})
    assert await legacy.peer.hear() == {"jsonrpc": "2.0", "id": request["id"], "result": {}}

    for raw_id, method in [("s-1", "sampling/createMessage"), (1.5, "roots/list"), (request["id"], "no/such")]:
        await legacy.peer.say({"jsonrpc": "2.0", "id": raw_id, "method": method, "params": {}})
        answer = await legacy.peer.hear()
        assert (answer["id"], answer["error"]["code"]) == (raw_id, -32601)

    assert not call.is_over
    assert legacy.ears.requests == ["sampling/createMessage", "roots/list", "no/such"]
    await legacy.peer.answer(request, {"mine": 1})
    assert await call.result() == {"mine": 1}


async def test_a_server_that_asks_without_reading_costs_no_more_than_the_bound(legacy: Talk) -> None:
    huge = b'"' + b"i" * (4 * 2**20) + b'"'
    for _ in range(4):
        await legacy.peer.say(b'{"id":' + huge + b',"method":"ping"}')
    await settled()

    assert legacy.session.outbox.queued_bytes <= 8 * 2**20
    assert not legacy.session.broken.is_set()


async def test_notifications_reach_the_listener(legacy: Talk) -> None:
    await legacy.peer.say(b'{"method":"notifications/tools/list_changed"}')
    await legacy.peer.say(b'{"method":"notifications/message","params":{"data":1E2}}')
    await settled()

    assert legacy.ears.notifications == [
        ("notifications/tools/list_changed", None),
        ("notifications/message", b'{"data":1E2}'),
    ]


Heard = list[tuple[str, Any]]


async def listening(talk: Talk, params: Any) -> tuple[Heard, Any]:
    heard: Heard = []

    def hear(method: str, raw: bytes | None) -> None:
        heard.append((method, None if raw is None else json.loads(raw)))

    return heard, await talk.start("m", None if params is None else encode(params), on_notification=hear)


async def test_progress_goes_to_its_own_caller_under_the_callers_own_token(legacy: Talk) -> None:
    """Both callers chose the same token, as clients do."""
    one, first = await listening(legacy, {"_meta": {"progressToken": 1}})
    two, second = await listening(legacy, {"_meta": {"progressToken": 1, "x": 2}, "a": 3})
    requests = [await legacy.peer.hear() for _ in range(2)]
    tokens = [request["params"]["_meta"]["progressToken"] for request in requests]
    assert len(set(tokens)) == 2
    assert requests[1]["params"] == {"_meta": {"progressToken": tokens[1], "x": 2}, "a": 3}

    for number, token in enumerate([tokens[1], tokens[0], tokens[1]]):
        await legacy.peer.say(
            {"method": "notifications/progress", "params": {"progressToken": token, "progress": number}}
        )
    for request in requests:
        await legacy.peer.answer(request)
    await first.result()
    await second.result()

    assert one == [("notifications/progress", {"progressToken": 1, "progress": 1})]
    assert two == [
        ("notifications/progress", {"progressToken": 1, "progress": 0}),
        ("notifications/progress", {"progressToken": 1, "progress": 2}),
    ]


@pytest.mark.parametrize(
    "token", ["corral-99", "corral-", "corral-x", "corral-²", "corral-" + "9" * 5_000, "mine", 17, None, ["corral-17"]]
)
async def test_progress_under_a_token_of_nobody_goes_to_nobody(legacy: Talk, token: Any) -> None:
    heard, call = await listening(legacy, {})
    request = await legacy.peer.hear()
    await legacy.peer.say({"method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
    await legacy.peer.say(b'{"method":"notifications/progress"}')
    await legacy.peer.say(b'{"method":"notifications/progress","params":[1]}')
    await legacy.peer.answer(request)

    await call.result()
    assert heard == []
    assert len(legacy.ears.notifications) == 3


async def test_progress_after_the_answer_goes_to_nobody(legacy: Talk) -> None:
    heard, call = await listening(legacy, {})
    request = await legacy.peer.hear()
    await legacy.peer.answer(request)
    await call.result()
    token = request["params"]["_meta"]["progressToken"]
    await legacy.peer.say({"method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
    await settled()

    assert heard == []


async def test_a_log_line_goes_to_a_caller_only_while_it_can_be_nobody_elses(legacy: Talk) -> None:
    line = {"method": "notifications/message", "params": {"level": "info", "data": "moo"}}
    one, first = await listening(legacy, {})
    request = await legacy.peer.hear()
    await legacy.peer.say(line)
    await settled()
    assert one == [("notifications/message", {"level": "info", "data": "moo"})]

    two, second = await listening(legacy, None)
    other = await legacy.peer.hear()
    await legacy.peer.say(line)
    await settled()
    assert (len(one), len(two)) == (1, 0), "whose is it?"

    await legacy.peer.answer(request)
    await first.result()
    await legacy.peer.say(line)
    await legacy.peer.answer(other)
    await second.result()
    assert (len(one), len(two)) == (1, 1)
    assert len(legacy.ears.notifications) == 3


async def test_the_last_log_line_of_a_call_that_was_given_up_goes_to_no_other_caller(legacy: Talk) -> None:
    async def begin(asker: str) -> Call:
        call = await legacy.session.open("tools/call", b"{}", timeout_s=WAIT_S, asker=asker)
        await legacy.peer.hear()
        return call

    async def logged() -> None:
        await legacy.peer.say({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x"}})
        await legacy.peer.say({"jsonrpc": "2.0", "id": "sync", "method": "ping"})
        await legacy.peer.hear()

    first, second = await begin("first"), await begin("second")
    legacy.session.pending.give_up(first, "cancelled")
    assert (await legacy.peer.hear())["method"] == "notifications/cancelled"
    await logged()
    assert not second.inbox

    await legacy.peer.say({"jsonrpc": "2.0", "id": first.wire_id, "result": {}})  # it is surely over
    await logged()
    assert second.inbox
    assert len(second.inbox) == 1


async def test_what_corral_asks_itself_keeps_no_log_line_from_a_caller(legacy: Talk) -> None:
    heard, _ = await listening(legacy, {})
    await legacy.peer.hear()
    await legacy.start("tools/list", is_own=True)
    await legacy.peer.hear()
    await legacy.peer.say({"method": "notifications/message", "params": {"level": "info", "data": "moo"}})
    await settled()
    assert heard == [("notifications/message", {"level": "info", "data": "moo"})]


async def test_a_caller_that_does_not_listen_gets_its_parameters_through_unchanged(legacy: Talk) -> None:
    call = await legacy.start("m", b'{"_meta":{"progressToken":1}}')
    line = await legacy.peer.line()
    assert b'"params":{"_meta":{"progressToken":1}}' in line
    await legacy.peer.answer(json.loads(line))
    await call.result()


async def test_a_message_too_deep_for_its_listener_is_noise(legacy: Talk) -> None:
    """What decodes here may not encode a few frames further down the stack: the child must not choose our crash."""
    await legacy.peer.say(b'{"method":"deep"}')
    call = await legacy.start("m")
    await legacy.peer.answer(await legacy.peer.hear())

    await call.result()
    assert legacy.ears.noise == [b'{"method":"deep"}']


async def test_many_lines_at_once_leave_others_their_turn(legacy: Talk) -> None:
    seen: list[int] = []

    async def look() -> None:
        while len(legacy.ears.notifications) < 500:
            seen.append(len(legacy.ears.notifications))
            await trio.lowlevel.checkpoint()

    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await legacy.peer.write(b'{"method":"n"}\n' * 500)
    assert len(set(seen)) >= 10


# -- what is Corral's own business


@pytest.mark.parametrize("method", ["initialize"])
async def test_the_handshake_is_not_asked_for_again(legacy: Talk, method: str) -> None:
    assert (await (await legacy.start(method)).result())["protocolVersion"] == "2025-11-25"
    assert legacy.peer.heard_nothing()


async def test_a_modern_server_gets_its_envelope_with_each_call_and_no_ping(modern: Talk) -> None:
    assert await (await modern.start("ping")).result() == {}
    assert modern.peer.heard_nothing()

    call = await modern.start("tools/list", b'{"cursor":1.0}')
    line = await modern.peer.line()
    request = json.loads(line)
    assert request["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
    assert b'"cursor":1.0' in line
    await modern.peer.answer(request, {"tools": []})
    assert await call.result() == {"tools": []}


async def test_a_modern_call_with_progress_carries_both(modern: Talk) -> None:
    heard, call = await listening(modern, {"_meta": {"progressToken": "mine"}})
    request = await modern.peer.hear()
    meta = request["params"]["_meta"]
    assert meta["io.modelcontextprotocol/clientInfo"]["name"] == "corral"
    await modern.peer.say({"method": "notifications/progress", "params": {"progressToken": meta["progressToken"]}})
    await modern.peer.answer(request)

    await call.result()
    assert heard == [("notifications/progress", {"progressToken": "mine"})]


async def test_descriptors_stay_with_their_owner_when_the_session_ends() -> None:
    async with open_talk() as talk:
        await talk.shake_hands("legacy")
        talk.peer.stdout.close_writes()
        with trio.fail_after(WAIT_S):
            await talk.session.broken.wait()
        assert drain(talk.peer.stdin.reads) == b""
        assert talk.peer.stdin.writes >= 0

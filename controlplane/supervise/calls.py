"""A call to an instance: may it be made, to which process, and what it counts as.

On the path of every request, so it costs no task, channel or cancel scope
unless the instance has to be waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any

import trio

from controlplane import tracing
from controlplane.core.lifecycle import PUBLIC_STATUS, Desired, State
from controlplane.errors import (
    Busy,
    CallTimeout,
    CorralError,
    FieldError,
    InstanceCrashed,
    InstanceUnavailable,
    InvalidRequest,
    NotRunning,
    ShuttingDown,
)
from controlplane.supervise import call_trace
from controlplane.supervise.lane import SUBSCRIPTIONS_MAX

if TYPE_CHECKING:
    from controlplane.model import Evidence
    from controlplane.protocol.pending import Call
    from controlplane.protocol.session import Session
    from controlplane.supervise.lane import Lane
    from controlplane.supervise.runner import Runner

RETRY_AFTER_SHUTDOWN_S = 5.0
"""A control plane that is started again serves its instances by then."""


async def place(
    runner: Runner,
    method: str,
    params: bytes | None,
    *,
    timeout_s: float | None = None,
    is_gone: Callable[[], bool] | None = None,
    on_notification: Callable[[str, bytes | None], None] | None = None,
) -> bytes:
    """Make one call and return the raw `"result":…` or `"error":…` member.

    Args:
        timeout_s: Seconds for waiting and answering together; None: the instance's own limit.
        is_gone: True once nobody waits for the answer any more.
        on_notification: Gets the progress and log notifications of this call.

    Raises:
        NotRunning, InstanceUnavailable, InstanceCrashed, BadChildMessage, CallTimeout, Busy, InvalidRequest, ShuttingDown
        QuotaExceeded: of the owner's day.
    """
    if method.startswith("notifications/"):
        raise InvalidRequest(
            "a notification has no answer to wait for",
            errors=(FieldError("/method", "expected a request, got a notification"),),
        )
    config = runner.around.config
    limit = min(timeout_s or runner.instance.spec.limits.call_timeout_s, config.max_call_timeout_s)
    if runner.calls_in_flight >= config.calls_in_flight:
        raise Busy(f"{config.calls_in_flight} calls are in flight already", retry_after_s=1)
    runner.calls_in_flight += 1
    try:
        if not runner.serving:
            limit = await _wait_until_serving(runner, limit)
        return await _measured(runner, method, params, limit=limit, is_gone=is_gone, on_notification=on_notification)
    except InstanceCrashed:
        if runner.orders.leaving:  # the conversation broke before its owner could say why
            raise _shutting_down() from None
        raise
    finally:
        runner.calls_in_flight -= 1


async def _measured(
    runner: Runner,
    method: str,
    params: bytes | None,
    *,
    limit: float,
    is_gone: Callable[[], bool] | None,
    on_notification: Callable[[str, bytes | None], None] | None,
) -> bytes:
    """Ask a serving instance, and count the call."""
    session = _session(runner)
    runner.account.check_day()
    runner.account.calls += 1
    trace = call_trace.begin(runner, session, method, params)
    if trace is not None:
        params = trace.params
    began = perf_counter()
    failed = True
    member: bytes | None = None
    owed_s = min(runner.instance.spec.limits.call_timeout_s, runner.around.config.max_call_timeout_s)
    try:
        member = await session.call(
            method, params, timeout_s=limit, owed_s=owed_s, is_gone=is_gone, on_notification=on_notification
        )
        failed = member.startswith(b'"error"')
    finally:
        took = perf_counter() - began
        runner.account.errors += failed
        if runner.meter.count(took, failed=failed):
            _announce(runner, method, took, failed=failed)
        if trace is not None:
            trace.end(member)
    return member


async def begin(
    runner: Runner,
    lane: Lane,
    method: str,
    params: bytes | None,
    *,
    asker: object,
    timeout_s: float | None = None,
    is_gone: Callable[[], bool] | None = None,
    logs: bool = True,
    can_leave: bool = False,
) -> Call:
    """Send a client's request on a lane, and count it; see `Session.open`, also for the errors.

    Args:
        timeout_s: Seconds; None: the instance's own limit.
    """
    config = runner.around.config
    limit = min(timeout_s or runner.instance.spec.limits.call_timeout_s, config.max_call_timeout_s)
    if runner.calls_in_flight >= config.calls_in_flight:
        raise Busy(f"{config.calls_in_flight} calls are in flight already", retry_after_s=1)
    runner.account.check_day()
    runner.calls_in_flight += 1
    trace = call_trace.begin(runner, lane.session, method, params)
    if trace is not None:
        params = trace.params
    began = perf_counter()
    try:
        call = await lane.session.open(
            method, params, timeout_s=limit, asker=asker, is_gone=is_gone, logs=logs, can_leave=can_leave
        )
    except BaseException:
        runner.calls_in_flight -= 1
        if trace is not None:
            trace.end(None)
        raise
    runner.account.calls += 1
    lane.used_at = call.started

    def ended() -> None:
        runner.calls_in_flight -= call.counts
        took = perf_counter() - began
        failed = not isinstance(call.outcome, bytes) or call.outcome.startswith(b'"error"')
        runner.account.errors += failed
        if runner.meter.count(took, failed=failed):
            _announce(runner, method, took, failed=failed)
        if trace is not None:
            trace.end(call.outcome)

    call.when_over(ended)
    return call


def set_aside(runner: Runner, call: Call) -> None:
    """A call waits until its client comes back, and is not in flight meanwhile."""
    runner.calls_in_flight -= call.counts
    call.counts = False


def take_up(runner: Runner, call: Call) -> None:
    """Its client is back."""
    if not call.counts and call.outcome is None:
        runner.calls_in_flight += 1
        call.counts = True


def extend(runner: Runner, call: Call) -> None:
    """A server that says something is at work: the call's time begins anew, up to the longest there is."""
    limit_s = runner.instance.spec.limits.call_timeout_s
    longest = call.started + runner.around.config.max_call_timeout_s
    call.deadline = max(call.deadline, min(trio.current_time() + limit_s, longest))


async def subscribe(
    lane: Lane, method: str, params: bytes | None, *, asker: object, is_gone: Callable[[], bool] | None
) -> Call:
    """Send a request that stays open; it is not counted among the calls, but has a bound of its own.

    Raises:
        Busy: `SUBSCRIPTIONS_MAX` are open; for the rest see `Session.open`.
    """
    check_subscriptions(lane)
    params = call_trace.passed_on(lane.session, params)
    call = await lane.session.open(method, params, timeout_s=inf, asker=asker, is_gone=is_gone, logs=False)
    lane.subscriptions += 1

    def ended() -> None:
        lane.subscriptions -= 1

    call.when_over(ended)
    return call


def check_subscriptions(lane: Lane) -> None:
    """Raises Busy when no more may be opened; whoever opens one counts it in `lane.subscriptions`."""
    if lane.subscriptions >= SUBSCRIPTIONS_MAX:
        raise Busy(f"{SUBSCRIPTIONS_MAX} subscriptions are open already", retry_after_s=5)


async def serving_lane(runner: Runner, timeout_s: float | None = None) -> Lane:
    """The primary; a start that is under way is waited for.

    Raises:
        NotRunning, InstanceUnavailable, CallTimeout, ShuttingDown
    """
    if not runner.serving:
        limit = runner.instance.spec.limits.call_timeout_s if timeout_s is None else timeout_s
        await _wait_until_serving(runner, limit)
    if runner.lane is None or not runner.serving:
        raise refusal(runner)
    return runner.lane


def crash(failure: Evidence | None, *, leaving: bool = False, replaced: bool = False) -> CorralError:
    """What a caller is told whose call was in flight when the process ended.

    Args:
        leaving: So does the control plane.
        replaced: A new revision serves in its place.
    """
    if leaving:
        return _shutting_down()
    if failure is None:
        why = "replaced by a new revision" if replaced else "stopped"
        return InstanceUnavailable(f"the instance was {why} during the call", retry_after_s=1)
    return InstanceCrashed(failure.reason, hint=failure.hint, evidence=facts(failure))


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("the control plane is stopping", retry_after_s=RETRY_AFTER_SHUTDOWN_S)


def facts(failure: Evidence) -> dict[str, Any]:
    """The members of a post-mortem that go into a problem document."""
    members = {
        "phase": failure.phase,
        "exit_code": failure.exit_code,
        "signal": failure.signal,
        "stderr_tail": list(failure.stderr_tail),
    }
    return {name: value for name, value in members.items() if value is not None}


async def _wait_until_serving(runner: Runner, limit: float) -> float:
    """Wait for a start under way; returns the seconds left."""
    began = trio.current_time()
    with tracing.during("wait for start", links=(runner.starts.context,)):
        is_serving = await runner.wait_serving(limit)
    if is_serving:
        return max(0.001, limit - (trio.current_time() - began))
    if trio.current_time() - began >= limit:
        raise CallTimeout(f"the instance did not come up within {limit:g} s", evidence={"phase": runner.phase})
    raise refusal(runner)


def is_coming_back(runner: Runner) -> bool:
    """Whether an instance that takes no calls now is to run, and is on its way there or waits for its next start."""
    return (
        runner.instance.desired is Desired.RUNNING
        and not runner.orders.leaving
        and runner.state not in (State.FAILED, State.STOPPED)
    )


def refusal(runner: Runner) -> CorralError:
    """Why this instance takes no call now."""
    instance = runner.instance
    if runner.orders.leaving:
        return _shutting_down()
    # A process that is over but not buried yet: the state still says RUNNING.
    status = PUBLIC_STATUS[State.BACKOFF if instance.state is State.RUNNING else instance.state]
    if instance.desired is not Desired.RUNNING or instance.state is State.STOPPED:
        return NotRunning(f"the instance is {status}", hint=f"start it: corral start {instance.name}")
    last = instance.last_error
    evidence: dict[str, Any] = {"instance_status": status} | (facts(last) if last is not None else {})
    detail = f"the instance is {status}" + (f": {last.reason}" if last is not None else "")
    if instance.state is State.FAILED:
        hint = (last.hint if last else None) or f"see its log, mend it, then: corral start {instance.name}"
        return InstanceUnavailable(detail, hint=hint, retry_after_s=30, evidence=evidence)
    return InstanceUnavailable(detail, retry_after_s=1, evidence=evidence)


def _session(runner: Runner) -> Session:
    child = runner.child
    if child is None or not runner.serving:
        raise refusal(runner)
    return child.session


def _announce(runner: Runner, method: str, took_s: float, *, failed: bool) -> None:
    hub, instance = runner.around.hub, runner.instance
    if hub.has_subscribers(instance.id) or hub.has_subscribers(None) or hub.has_subscribers(instance.owner):
        data = {"method": method, "ok": not failed, "ms": round(took_s * 1000, 3)}
        hub.publish_nowait("call", instance_id=instance.id, owner=instance.owner, data=data, ring=False)

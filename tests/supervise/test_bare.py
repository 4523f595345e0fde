"""A server without ids under callers who do not wait: it keeps its process, or gets a new one without blame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from controlplane.core.jsonrpc import member_value
from controlplane.core.lifecycle import State
from controlplane.core.restart import RestartMode, RestartPolicy
from controlplane.errors import CallTimeout, InstanceCrashed, InstanceUnavailable
from controlplane.model import Limits
from controlplane.supervise import child
from tests.supervise.test_runner import wait_until

if TYPE_CHECKING:
    from tests.supervise.conftest import Yard

SOURCE = b"""
import json, os, sys, time
for line in sys.stdin:
    method = json.loads(line)["method"]
    if method == "slow":
        time.sleep(1)
    if method != "never":
        print(json.dumps({"result": {"pid": os.getpid()}}), flush=True)
"""
TINY_S = 0.001


async def test_callers_with_tiny_limits_cost_it_nothing(yard: Yard) -> None:
    runner = await yard.running(SOURCE)
    pid = member_value(await runner.call("pid", None))

    for _ in range(8):
        with pytest.raises(CallTimeout):
            await runner.call("slow", None, timeout_s=TINY_S)

    assert member_value(await runner.call("pid", None)) == pid
    assert runner.instance.incarnation == 1


async def test_a_stop_waits_for_no_answer_that_is_only_owed(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "DRAIN_S", 60.0)
    runner = await yard.running(SOURCE)
    with pytest.raises(CallTimeout):
        await runner.call("never", None, timeout_s=TINY_S)

    await yard.supervisor.stop(runner)

    await wait_until(lambda: runner.state is State.STOPPED)


@pytest.mark.parametrize("mode", list(RestartMode))
async def test_one_that_never_answers_is_replaced_and_never_condemned_for_it(yard: Yard, mode: RestartMode) -> None:
    policy = RestartPolicy(mode=mode, burst=2, base_delay_s=0.01)
    runner = await yard.running(SOURCE, limits=Limits(call_timeout_s=0.05), restart=policy)

    for number in range(2, 6):
        with pytest.raises((CallTimeout, InstanceCrashed, InstanceUnavailable)):
            await runner.call("never", None)
        await wait_until(lambda: runner.instance.incarnation == number and runner.state is State.RUNNING)  # noqa: B023

    failure = runner.instance.last_error
    assert failure is not None
    assert failure.code != "crash_loop"
    assert "a call timed out, and a server without ids cannot be told" in failure.reason

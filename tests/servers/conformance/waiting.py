"""The tools of the bridge tests that take their time: one that reports all the while, one that is to be cancelled."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import anyio
from asking import elicitation, filled_in
from tools import STEP_S, TEXT, tool

if TYPE_CHECKING:
    from asking import Call

CANCEL_LIMIT_S = 60
"""A call that nobody cancels ends by itself."""
SEEN_LIMIT_S = 20
"""For the news of a cancellation to come in."""

_cancelled: defaultdict[str, anyio.Event] = defaultdict(anyio.Event)
"""By the key that the test gave its call."""


@tool("Counts, and reports each step", steps={"type": "integer"})
async def count_up(call: Call) -> str:
    steps = call.arguments["steps"]
    for step in range(1, steps + 1):
        await call.ctx.session.report_progress(step, steps, f"step {step}")
        await anyio.sleep(STEP_S)
    return f"Counted to {steps}."


@tool("Reports that it runs, and waits to be cancelled", key=TEXT)
async def wait_to_be_cancelled(call: Call) -> str:
    try:
        await call.ctx.session.report_progress(1, 2, "waiting")
        await anyio.sleep(CANCEL_LIMIT_S)
    except anyio.get_cancelled_exc_class():
        _cancelled[call.arguments["key"]].set()
        raise
    return "Nobody cancelled this."


@tool("Says whether the waiting call with this key has seen a cancellation", key=TEXT)
async def was_cancelled(call: Call) -> str:
    with anyio.move_on_after(SEEN_LIMIT_S):
        await _cancelled[call.arguments["key"]].wait()
        return "It was cancelled."
    return "It was not cancelled."


@tool("Reports that it thinks, and then asks the user", message=TEXT)
async def think_and_ask(call: Call) -> str:
    await call.ctx.session.report_progress(1, 2, "thinking")
    await anyio.sleep(2 * STEP_S)
    form = elicitation(call.arguments["message"], ["name"], name=TEXT)
    return f"The user says {filled_in((await call.ask(form=form))['form'], 'name')}."

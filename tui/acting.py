"""How a verb goes from a key press to the server: asked about where it cannot be taken back, done, told."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tui.screens.base import BoardScreen
from tui.screens.confirm import ConfirmScreen
from tui.verbs import Verb, carry_out, named
from tui.working import set_to_work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tui.app import Dashboard

REFUSALS_SHOWN = 3
"""Of a bulk action, one by one; the rest as a number."""


def ask_then_do(app: Dashboard, verb: Verb, ids: Sequence[str]) -> None:
    """Do a verb to instances, once the person has said yes where it needs one."""
    rows = app.plane.board.present(ids)
    if app.plane.read_only:
        app.warn(f"Read-only: nothing is {verb.done} from here")
    elif not rows:
        app.warn(f"Nothing is selected to {verb.name}")
    elif not verb.asks:
        set_to_work(app, partial(_do, app, verb, ids))
    else:

        def answered(yes: bool | None) -> None:
            if yes:
                set_to_work(app, partial(_do, app, verb, ids))

        app.push_screen(ConfirmScreen(verb.asks.format(named(rows)), verb.name.title()), answered)


async def _do(app: Dashboard, verb: Verb, ids: Sequence[str]) -> None:
    rows = app.plane.board.present(ids)
    if isinstance(app.screen, BoardScreen):
        app.screen.acted()
    outcome = await carry_out(app.plane.api, verb, rows)
    if outcome.done:
        app.notify(f"{verb.doing.capitalize()} {named(outcome.done)}", markup=False)
    for who, failure in outcome.refused[:REFUSALS_SHOWN]:
        app.warn(f"{who}: {failure}", failure.hint)
    if len(outcome.refused) > REFUSALS_SHOWN:
        app.warn(f"{len(outcome.refused) - REFUSALS_SHOWN} more could not be {verb.done}")

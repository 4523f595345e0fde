"""Work beside the painting: requests and streams, as workers of the widget that wants them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from textual.dom import DOMNode
    from textual.worker import Worker


def set_to_work(
    node: DOMNode,
    work: Callable[[], Coroutine[Any, Any, None]],
    *,
    group: str = "default",
    exclusive: bool = False,
    exit_on_error: bool = True,
) -> Worker[None]:
    """Have `node` do some work, until it is done or the node is gone.

    The function is handed over and not the coroutine that it makes: a worker that is cancelled before its first step
    would leave that behind, never awaited.

    Args:
        node: Whose it is.
        work: What to do.
        group: By which it can be cancelled.
        exclusive: Cancel the group's others first.
        exit_on_error: Whether an exception ends the dashboard.
    """

    async def worker() -> None:
        await work()  # a lambda's coroutine too, which the framework would take for a function without one

    return node.run_worker(cast("Any", worker), group=group, exclusive=exclusive, exit_on_error=exit_on_error)

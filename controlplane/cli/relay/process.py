"""The life of one `corral proxy` process: until its input ends, its reader is gone, or a signal says so."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import trio

from controlplane.cli.exits import Exit
from controlplane.cli.relay.conversation import Conversation
from controlplane.cli.relay.pipes import Output, lines_of
from controlplane.cli.relay.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.cli.target import Target

STDIN, STDOUT = 0, 1
FLUSH_S = 0.5
"""For the last answers to be read, once there are no more."""


def serve(target: Target, path: str, note: Callable[[str], None]) -> Exit:
    """Relay messages until the end, and return how it ended.

    Args:
        target: The control plane and the token for it.
        path: The endpoint's path.
        note: Tells the operator a sentence.
    """
    return trio.run(_serve, target, path, note)


async def _serve(target: Target, path: str, note: Callable[[str], None]) -> Exit:
    upstream = Upstream(target.url + path, target)
    output = Output(STDOUT)
    conversation = Conversation(upstream, output, note)
    code = Exit.OK
    async with trio.open_nursery() as nursery:

        async def end_on_signal() -> None:
            nonlocal code
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
                async for number in signals:
                    code = Exit.INTERRUPTED if number == signal.SIGINT else Exit.OK
                    nursery.cancel_scope.cancel()

        async def end_without_reader() -> None:
            await output.flushed.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(end_on_signal)
        nursery.start_soon(output.run)
        nursery.start_soon(end_without_reader)
        await conversation.run(lines_of(STDIN))
        output.close()
        with trio.move_on_after(FLUSH_S):
            await output.flushed.wait()
        nursery.cancel_scope.cancel()
    await conversation.end()
    await upstream.close()
    return code

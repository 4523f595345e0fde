"""`/runtimes`: which languages can be run here, in which versions, and how to get the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.model import Role
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.route import Route
from controlplane.wire.runtimes import RuntimeOut, RuntimesOut, ToolOut

if TYPE_CHECKING:
    from controlplane.deploy.toolchain import Runtime, Toolchain


@define(eq=False)
class Runtimes:
    """Asks the toolchain, for one caller at a time: the first may wait for tools to say their versions."""

    toolchain: Toolchain
    _turn: trio.Lock = field(factory=trio.Lock, init=False)

    async def survey(self) -> tuple[Runtime, ...]:
        """Say for each language whether it can be run."""
        async with self._turn:
            # A tool that hangs is ended by itself; a caller who has gone, or a stop, need not wait for that.
            return await trio.to_thread.run_sync(self.toolchain.survey, abandon_on_cancel=True)


async def get_runtimes(call: Call) -> Reply:
    """Each language with its tools; where they are on the host is nobody's business."""
    return json_reply(RuntimesOut(runtimes=[_out(runtime) for runtime in await call.services.runtimes.survey()]))


def _out(runtime: Runtime) -> RuntimeOut:
    return RuntimeOut(
        language=runtime.language,
        usable=runtime.usable,
        tools=[ToolOut(name=tool.name, version=tool.version) for tool in runtime.tools],
        missing=list(runtime.missing),
        hint=runtime.hint,
    )


ROUTES = (
    Route(
        "GET",
        "/runtimes",
        get_runtimes,
        operation="getRuntimes",
        summary="Languages that can be run here",
        description=(
            "Each with the tools that it needs, their versions, what is missing and how to get it. A tool counts only"
            " if every instance's user can run it. The first answer of a control plane may take some seconds."
        ),
        tag="System",
        role=Role.VIEWER,
        answers={200: RuntimesOut},
        open_to_limited=True,
    ),
)

"""What can be done to instances: start, stop, restart, delete; one or many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from tui.client import Failure, path_of

if TYPE_CHECKING:
    from tui.board.rows import Row
    from tui.client import Api

AT_ONCE = 8
"""Requests of a bulk action in flight: the server starts one after the other anyway."""
WAIT_S = 0.0
"""The board shows how it goes on; nobody waits for an answer."""
DELETE_WAIT_S = 20.0
"""A deletion is answered once no process is left: the stop ladder takes up to 9.5 s."""

VerbName = Literal["start", "stop", "restart", "delete"]


@frozen
class Verb:
    """One verb. `asks` is the question before it is done; empty: it does no harm."""

    name: VerbName
    doing: str
    done: str
    asks: str = ""


VERBS: Mapping[VerbName, Verb] = {
    "start": Verb("start", "starting", "started"),
    "stop": Verb("stop", "stopping", "stopped", "Stop {}? Calls in flight get 4 seconds to finish."),
    "restart": Verb("restart", "restarting", "restarted", "Restart {}? Its sessions end, and what it holds in memory."),
    "delete": Verb("delete", "deleting", "deleted", "Delete {}? Its files go with it; this cannot be undone."),
}


@frozen
class Outcome:
    """What came of a verb: whom it was done to, and each one that refused."""

    done: tuple[Row, ...]
    refused: tuple[tuple[str, Failure], ...]


def named(rows: Sequence[Row]) -> str:
    """Say in a few words which instances are meant."""
    names = [row.name for row in rows]
    return names[0] if len(names) == 1 else f"{len(names)} instances ({', '.join(names[:3])}{', …' * (len(names) > 3)})"


async def carry_out(api: Api, verb: Verb, rows: Sequence[Row]) -> Outcome:
    """Do it to each; one that refuses holds up none of the others."""
    turns = asyncio.Semaphore(AT_ONCE)
    done: list[Row] = []
    refused: list[tuple[str, Failure]] = []

    async def one(row: Row) -> None:
        async with turns:
            try:
                await _request(api, verb, row)
                done.append(row)
            except Failure as failure:
                refused.append((row.name, failure))

    await asyncio.gather(*(one(row) for row in rows))
    return Outcome(tuple(done), tuple(refused))


async def _request(api: Api, verb: Verb, row: Row) -> None:
    if verb.name == "delete":
        await api.send("DELETE", path_of("instances", row.id), wait_s=DELETE_WAIT_S)
    else:
        await api.send("POST", path_of("instances", row.id, verb.name), query={"wait": WAIT_S})

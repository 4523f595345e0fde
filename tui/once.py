"""`corral tui --once`: the first screen, or all behind it as JSON, printed; no terminal is needed."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from tui.board.board import Board
from tui.board.cells import GAP, fit, ordered, placed
from tui.board.fleet_columns import FLEET_COLUMNS
from tui.board.reading import mapping, text
from tui.client import Api, Failure

if TYPE_CHECKING:
    from tui.contexts import Context

EXIT_FAILED, EXIT_NOT_ALLOWED, EXIT_NO_CONNECTION = 1, 4, 7
"""As those of every other command."""
PIPE_CELLS = 200
"""A pipe gets every column."""


async def picture(context: Context) -> dict[str, Any]:
    """Read what the first screen shows: `{context, at, health, stats, instances}`, the API's own documents.

    Raises:
        Failure: the server is away or refused.
    """
    async with Api(context, read_only=True) as api:
        instances = await api.pages("/instances", "instances")
        try:
            health = await api.get("/health")
        except Failure as failure:
            if not isinstance(failure.document, dict):
                raise
            health = failure.document  # an unhealthy control plane says so with a 503
        stats = await api.get("/stats")
    return {"context": context.name, "at": time.time(), "health": health, "stats": stats, "instances": instances}


def table(document: dict[str, Any], width: int) -> list[str]:
    """Return the fleet as lines of text, by name."""
    board = Board()
    now = document["at"]
    board.take_fleet(document["instances"], now)
    board.take_health(mapping(document["health"]), now)
    columns = [column for column in FLEET_COLUMNS if not column.key.endswith("_spark")]  # one look has no past
    sized = fit(columns, width)
    by_name = ordered(list(board.rows.values()), FLEET_COLUMNS[0], now, descending=False)
    lines = [[(column.title, column.right, cells) for column, cells in sized]]
    lines += [[(column.cell(row, now).text, column.right, cells) for column, cells in sized] for row in by_name]
    counts = ", ".join(f"{number} {status}" for status, number in sorted(board.by_status().items())) or "no instances"
    health = text(mapping(document["health"]).get("status")) or "health unknown"
    head = f"{document['context']}: {health}, {counts}"
    gap = " " * GAP
    return [head, *(gap.join(placed(t, cells, right=r) for t, r, cells in line).rstrip() for line in lines)]


async def print_once(context: Context, *, as_json: bool) -> int:
    """Print the picture, and return the exit code."""
    try:
        document = await picture(context)
    except Failure as failure:
        click.echo(f"{failure}\n{failure.hint}".strip(), err=True)
        if failure.code == "away":
            return EXIT_NO_CONNECTION
        return EXIT_NOT_ALLOWED if failure.status in {401, 403} else EXIT_FAILED
    if as_json:
        click.echo(json.dumps(document))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_CELLS
        click.echo("\n".join(table(document, width)))
    return 0

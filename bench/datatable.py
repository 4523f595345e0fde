"""What most would write: the same fleet in Textual's DataTable, updated cell by cell. `python -m bench.datatable URL`."""

from __future__ import annotations

import json
import sys
from typing import Any

import httpx
from textual.app import App, ComposeResult
from textual.widgets import DataTable

COLUMNS = ("name", "status", "cpu", "memory", "rate", "p95", "calls", "errors")


class Table(App[None]):
    """Paints each event as it comes; Textual itself puts paints together."""

    BINDINGS = [("j", "down", "down"), ("k", "up", "up")]  # noqa: RUF012

    def compose(self) -> ComposeResult:
        yield DataTable(cursor_type="row")

    def on_mount(self) -> None:
        table = self.query_one(DataTable)
        for column in COLUMNS:
            table.add_column(column.upper(), key=column)
        table.focus()
        self.run_worker(self.follow())

    def action_down(self) -> None:
        self.query_one(DataTable).action_cursor_down()

    def action_up(self) -> None:
        self.query_one(DataTable).action_cursor_up()

    async def follow(self) -> None:
        table = self.query_one(DataTable)
        async with httpx.AsyncClient(base_url=sys.argv[1], timeout=None) as client:
            for row in (await client.get("/instances")).json()["instances"]:
                table.add_row(row["name"], row["status"], "", "", "", "", "0", "0", key=row["instance_id"])
            async with client.stream("GET", "/events") as response:
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        self.take(table, json.loads(line[6:]))

    def take(self, table: DataTable[str], event: dict[str, Any]) -> None:
        if event["type"] == "status":
            table.update_cell(event["instance_id"], "status", event["status"])
        if event["type"] == "sample":
            for column, key in (("cpu", "cpu_percent"), ("memory", "memory_mb"), ("rate", "calls"), ("p95", "p95_ms")):
                table.update_cell(event["instance_id"], column, f"{event[key]}")


if __name__ == "__main__":
    Table().run()

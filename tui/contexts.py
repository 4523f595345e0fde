"""The control planes that the dashboard may be pointed at, as `corral tui` hands them over.

They come in one environment variable, tokens included, which is taken out of the environment at once: what this
process starts must not inherit them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from typing import Any

from attrs import field, frozen

VARIABLE = "CORRAL_TUI_CONTEXTS"
LOCAL_URL = "http://127.0.0.1:8000"


@frozen(kw_only=True)
class Context:
    """One control plane by name. `origin` says where its token came from, for the message about a refused one."""

    name: str
    url: str
    token: str | None = field(default=None, repr=False)
    colour: str = ""
    read_only: bool = False
    origin: str = ""


@frozen
class Contexts:
    """All of them, and the one to begin with."""

    known: tuple[Context, ...]
    current: Context

    def named(self, name: str) -> Context | None:
        return next((context for context in self.known if context.name == name), None)


def take(environ: MutableMapping[str, str]) -> Contexts:
    """Read the contexts and remove them from the environment; without any, the one that `CORRAL_URL` names.

    Raises:
        ValueError: the variable does not hold what `corral tui` writes.
    """
    text = environ.pop(VARIABLE, "")
    token = environ.pop("CORRAL_TOKEN", None)
    if not text:
        here = Context(name="local", url=environ.get("CORRAL_URL") or LOCAL_URL, token=token, origin="CORRAL_TOKEN")
        return Contexts((here,), here)
    try:
        document = json.loads(text)
        known = tuple(_context(entry) for entry in document["contexts"])
        current = next(context for context in known if context.name == document["current"])
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise ValueError(f"{VARIABLE} does not hold what `corral tui` writes: start the dashboard with it") from error
    return Contexts(known, current)


def _context(entry: Mapping[str, Any]) -> Context:
    return Context(
        name=entry["name"],
        url=entry["url"].rstrip("/"),
        token=entry.get("token"),
        colour=entry.get("colour") or "",
        read_only=bool(entry.get("read_only")),
        origin=entry.get("origin") or "",
    )

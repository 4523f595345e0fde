"""What every command gets: the screen, whether JSON was asked for, and the API, opened when first used."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click
from attrs import define, field

from controlplane.cli.app import CONTEXT_ASKED, JSON_ASKED, context_option
from controlplane.cli.choosing import chosen_target
from controlplane.cli.client import Answer, Api
from controlplane.cli.exits import CommandFailed, program
from controlplane.cli.screen import Screen

if TYPE_CHECKING:
    from controlplane.cli.target import Target

COMPLETION_ITEMS = 200
"""Names offered by shell completion; more would not be read."""

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Command = TypeVar("_Command", bound=Callable[..., Any])


@define
class Session:
    """One run of the command; `context` is what `--context` named."""

    json: bool = False
    context: str | None = None
    screen: Screen = field(factory=Screen)
    _api: Api | None = None

    @property
    def target(self) -> Target:
        return self.api.target

    @property
    def api(self) -> Api:
        if self._api is None:
            self._api = Api(chosen_target(os.environ, self.context))
        return self._api

    def new_api(self) -> Api:
        """Open one more connection pool, for a thread of its own."""
        return Api(self.target)

    def close(self) -> None:
        if self._api is not None:
            self._api.close()

    def shown_as_json(self, answer: Answer) -> bool:
        """Print the answer where JSON was asked for; whether that was so."""
        if self.json:
            self.screen.json_bytes(answer.body)
        return self.json


def pass_session(command: Callable[Concatenate[Session, _P], _R]) -> Callable[_P, _R]:
    """Give a command its `Session` as the first argument, closed when the command ends, and `--context` to choose it."""

    @functools.wraps(command)
    def with_session(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        context = click.get_current_context()
        session = Session(context.meta.get(JSON_ASKED, False), context.meta.get(CONTEXT_ASKED))
        context.call_on_close(session.close)
        return command(session, *args, **kwargs)

    return context_option(with_session, hidden=True)


def _want_json(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.meta[JSON_ASKED] = True


def json_option(command: _Command) -> _Command:
    """Add `--json`, which every command takes, before or after its name."""
    option = click.option(
        "--json", is_flag=True, expose_value=False, callback=_want_json, help="Print the API's JSON and nothing else."
    )
    return option(command)


def wait_option(default: float) -> Callable[[_Command], _Command]:
    """Add `--wait SECONDS`, bounded as the API bounds it."""
    return click.option(
        "--wait",
        "wait_s",
        type=click.FloatRange(0, 300),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for it; 0: only ask for it.",
    )


def complete_instances(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Offer the instances' names; a server that is away offers none."""
    try:
        api = Api(chosen_target(os.environ, context.meta.get(CONTEXT_ASKED)))
        instances = api.get("/instances", limit=COMPLETION_ITEMS).document["instances"]
    except (CommandFailed, KeyError, TypeError):
        return []
    return [name for name in (str(row.get("name")) for row in instances) if name.startswith(incomplete)]


def name_argument(command: _Command) -> _Command:
    """Add the argument NAME: one instance, by name, UUID, or `owner/name` for administrators."""
    return click.argument("name", shell_complete=complete_instances)(command)


def names_argument(command: _Command) -> _Command:
    """Add the argument NAME…: one instance or more."""
    return click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_instances)(
        command
    )


def examples(*lines: str, note: str = "") -> str:
    """Return a command's epilog: example lines under the name the operator typed, then a note."""
    shown = "".join(f"  {line.format(corral=program())}\n" for line in lines)
    return f"\b\nExamples:\n{shown}\n{note.format(corral=program())}"

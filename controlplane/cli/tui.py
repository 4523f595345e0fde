"""`corral tui`: become the dashboard. It gets the control planes, and the tokens for them, in one variable."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

import click
from attrs import frozen

from controlplane.cli.app import CONTEXT_ASKED, JSON_ASKED, context_option
from controlplane.cli.choosing import choose, every_target
from controlplane.cli.contextfile import Contexts, path_of_contexts, read
from controlplane.cli.exits import CommandFailed, Exit, Problem
from controlplane.cli.session import json_option
from controlplane.cli.target import LOCAL

if TYPE_CHECKING:
    from controlplane.cli.target import Target

CONTEXTS_VARIABLE = "CORRAL_TUI_CONTEXTS"
"""Tokens go by the environment, which other users cannot read; the arguments of a process they can."""

EPILOG = """\b
Keys:
  ?  all keys      enter  into it       esc     out of it
  /  filter        :      commands      ctrl+p  instances and commands
  a  alerts        c      contexts      q       quit

The contexts are those of `corral context ls`; one can be changed for another while it runs. Its themes are
corral-dark, corral-light, and those that Textual has: `:theme` lists them.
"""


@frozen(kw_only=True)
class Wish:
    """What was asked of the dashboard."""

    read_only: bool = False
    theme: str | None = None
    once: bool = False
    as_json: bool = False
    web: bool = False
    port: int | None = None
    no_open: bool = False

    @property
    def words(self) -> list[str]:
        """As the dashboard takes it."""
        flags = {
            "--read-only": self.read_only,
            "--once": self.once,
            "--json": self.as_json,
            "--web": self.web,
            "--no-open": self.no_open,
        }
        words = [flag for flag, given in flags.items() if given]
        words += [] if self.theme is None else ["--theme", self.theme]
        return words + ([] if self.port is None else ["--port", str(self.port)])

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            click.UsageError: something does not.
        """
        if self.once and self.web:
            raise click.UsageError("--once and --web: give one of them.")
        if self.as_json and not self.once:
            raise click.UsageError("--json needs --once: the dashboard itself is no JSON.")
        if (self.port is not None or self.no_open) and not self.web:
            raise click.UsageError("--port and --no-open need --web.")


def launch(
    wish: Wish, current: str, targets: Sequence[Target], environ: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Return the command line and the environment of the dashboard."""
    contexts = [
        {
            "name": target.context,
            "url": target.url,
            "token": target.token,
            "colour": target.colour,
            "read_only": target.read_only,
            "origin": target.origin,
        }
        for target in targets
    ]
    # -P: a module in the caller's folder must never be imported in place of ours.
    arguments = [sys.executable, "-P", "-m", "tui", *wish.words]
    return arguments, {**environ, CONTEXTS_VARIABLE: json.dumps({"current": current, "contexts": contexts})}


@click.command(short_help="The dashboard: watch and work with the fleet in the terminal.", epilog=EPILOG)
@context_option
@click.option("--read-only", is_flag=True, help="Change nothing, in whatever context.")
@click.option("--theme", metavar="NAME", help="Its colours.")
@click.option("--once", is_flag=True, help="Print one picture and exit; with --json, as JSON.")
@click.option("--web", is_flag=True, help="Serve it to a browser on this machine.")
@click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="With --web: the port; 0: any free one.")
@click.option("--no-open", is_flag=True, help="With --web: do not open the browser.")
@json_option
@click.pass_context
def tui(
    context: click.Context, /, *, read_only: bool, theme: str | None, once: bool, web: bool, **of_web: bool | int | None
) -> NoReturn:
    """Watch the fleet live, and work with it: logs, calls, deploys, everything by key."""
    port, no_open = of_web["port"], bool(of_web["no_open"])
    as_json = bool(context.meta.get(JSON_ASKED))
    wish = Wish(read_only=read_only, theme=theme, once=once, as_json=as_json, web=web, port=port, no_open=no_open)
    wish.check()
    _need_textual()
    if not (once or web):
        _need_terminal()
    asked = context.meta.get(CONTEXT_ASKED)
    contexts = _kept(asked)
    choice = choose(os.environ, asked, contexts.current)
    targets = every_target(os.environ, contexts, choice)
    _become(*launch(wish, choice.name, targets, os.environ))


def _kept(asked: str | None) -> Contexts:
    """Read the contexts; who asks for the one on this machine gets it, even if the others cannot be used."""
    try:
        return read(path_of_contexts(os.environ))
    except CommandFailed:
        if asked == LOCAL:
            return Contexts()
        raise


def _need_textual() -> None:
    if importlib.util.find_spec("textual") is None:
        problem = Problem(
            title="The dashboard needs the package `textual`, which is not installed here",
            hint="Install Corral with all that it requires; `./corral` in a checkout does so by itself.",
        )
        raise CommandFailed(problem, Exit.FAILED)


def _need_terminal() -> None:
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)):
        problem = Problem(
            title="The dashboard needs a terminal, for what it shows and for its keys",
            hint="--once prints one picture and exits, --once --json the same for programs; --web serves a browser.",
        )
        raise CommandFailed(problem, Exit.USAGE)


def _become(arguments: list[str], environment: dict[str, str]) -> NoReturn:
    sys.stdout.flush()
    try:
        os.execve(sys.executable, arguments, environment)
    except OSError as error:
        problem = Problem(title="The dashboard cannot be started", detail=f"{sys.executable}: {error.strerror}")
        raise CommandFailed(problem, Exit.FAILED) from error

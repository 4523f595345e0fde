"""Which context is in force, and what it leads to.

`--context` and `CORRAL_CONTEXT` beat all; then come `CORRAL_URL` and `CORRAL_TOKEN`, then what `context use` chose,
then the control plane on this machine. A context's token goes to the context's own server, whatever else is set.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from controlplane.cli.contextfile import Context, Contexts, path_of_contexts, read
from controlplane.cli.exits import CommandFailed, Exit, Problem, program
from controlplane.cli.target import LOCAL, Target, find_target

if TYPE_CHECKING:
    import click

VARIABLE = "CORRAL_CONTEXT"


@frozen
class Choice:
    """The name of the context in force, and what chose it."""

    name: str
    why: str


def _said(environ: Mapping[str, str], asked: str | None) -> Choice | None:
    """Return what this run was told, by an option or the environment."""
    if asked:
        return Choice(asked, "--context")
    if named := environ.get(VARIABLE, "").strip():
        return Choice(named, VARIABLE)
    variable = next((name for name in ("CORRAL_URL", "CORRAL_TOKEN") if environ.get(name, "").strip()), None)
    return Choice(LOCAL, variable) if variable else None


def choose(environ: Mapping[str, str], asked: str | None, current: str | None) -> Choice:
    """Decide which context is in force.

    Args:
        environ: The environment.
        asked: What `--context` said.
        current: What `context use` chose.
    """
    return _said(environ, asked) or (Choice(current, "context use") if current else Choice(LOCAL, "nothing else said"))


def chosen_target(environ: Mapping[str, str], asked: str | None = None) -> Target:
    """Find the server and the token in force; the contexts' file is read only where it has a say.

    Raises:
        CommandFailed: there is no such context, or what says where it is cannot be used.
    """
    said = _said(environ, asked)
    if said is not None and said.name == LOCAL:
        return find_target(environ)
    kept = read(path_of_contexts(environ))
    return target_of(environ, kept, choose(environ, asked, kept.current))


def target_of(environ: Mapping[str, str], kept: Contexts, choice: Choice) -> Target:
    """Return where one context leads to.

    Raises:
        CommandFailed: there is no such context, or the one on this machine cannot be used.
    """
    if choice.name == LOCAL:
        return find_target(environ)
    context = kept.known.get(choice.name)
    if context is None:
        raise unknown(kept, choice)
    return _kept_target(choice.name, context)


def _kept_target(name: str, context: Context) -> Target:
    return Target(context.url, context.token, f"the context {name}", name, context.colour, context.read_only)


def every_target(environ: Mapping[str, str], kept: Contexts, choice: Choice) -> list[Target]:
    """Return where all contexts lead to; the one on this machine is left out if it cannot be used and is not asked for.

    Raises:
        CommandFailed: the one in force leads nowhere.
    """
    wanted = target_of(environ, kept, choice)
    targets = [_kept_target(name, context) for name, context in kept.known.items()]
    if choice.name == LOCAL:
        return [wanted, *targets]
    try:
        return [find_target(environ), *targets]
    except CommandFailed:
        return targets


def unknown(kept: Contexts, choice: Choice) -> CommandFailed:
    """Say that a context is not there, and which one may have been meant."""
    near = difflib.get_close_matches(choice.name, [LOCAL, *kept.known], 1)
    guess = f"Did you mean {near[0]}? " if near else ""
    detail = "" if choice.why == "--context" else f"It was named by {choice.why}."
    hint = f"{guess}`{program()} context ls` lists them."
    return CommandFailed(Problem(title=f"There is no context {choice.name!r}", detail=detail, hint=hint), Exit.USAGE)


def complete_contexts(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Offer the contexts' names to a shell; a file that cannot be used offers none but the one that is always there."""

    try:
        kept = read(path_of_contexts(os.environ))
    except CommandFailed:
        kept = Contexts()
    return [name for name in (LOCAL, *kept.known) if name.startswith(incomplete)]

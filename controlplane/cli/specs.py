"""From a command line to the API's JSON: the options that `deploy` and `redeploy` share, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import IO, Any, TypeVar

import click
from attrs import field, frozen

from controlplane.cli import keeping
from controlplane.cli.pairs import environment_of, labels_of
from controlplane.packing.refusal import NotThere, Unusable
from controlplane.packing.sources import Source, source_of

_Command = TypeVar("_Command", bound=Callable[..., Any])
COMMAND = "corral.command"
"""Where a run keeps what came after `--`; click itself drops the two dashes."""

_OPTIONS = (
    click.option(
        "-e", "--env", "env", multiple=True, metavar="NAME[=VALUE]", help="A variable for the server; repeatable."
    ),
    click.option("--cwd", help="The folder that the server's command starts in."),
    click.option("--language", metavar="NAME", help="python, node, typescript, go, rust …; without: guessed."),
    click.option("--entry", "entry_point", metavar="FILE", help="What to run of the source; without: guessed."),
    click.option(
        "-d", "--dependency", "dependencies", multiple=True, metavar="PACKAGE", help="To install; repeatable."
    ),
    click.option("--build", "build_command", metavar="COMMAND", help="An own build step, run by sh."),
    click.option("--ref", "source_ref", metavar="REF", help="Branch, tag or commit of a repository."),
    click.option("--subdir", "source_subdir", metavar="FOLDER", help="The folder of the source that counts."),
    click.option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label; repeatable."),
    click.option(
        "--restart", "restart", type=click.Choice(["always", "on-failure", "never"]), help="When to start it again."
    ),
    click.option("--sessions", type=click.Choice(["shared", "per-session"]), help="Whether clients share one process."),
    *keeping.OPTIONS,
)
_OF_SOURCES = ("entry_point", "dependencies", "build_command", "source_ref", "source_subdir")


def spec_options(command: _Command) -> _Command:
    """Add the options of `deploy` and `redeploy`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


class SpecCommand(click.Command):
    """Keeps what stands after `--` apart, and tells of `--` whoever forgot it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta[COMMAND] = tuple(args[at + 1 :])
            args = args[:at]
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            advice = "If it belongs to the server's command, put `--` before that command."
            raise click.UsageError(f"{error.format_message()} {advice}", ctx) from error


@frozen(kw_only=True)
class Wanted:
    """The request's JSON, the archive beside it, and the source that it was made of."""

    document: dict[str, Any]
    file: IO[bytes] | None = field(default=None, repr=False)
    source: Source | None = None


def wanted(source: str | None, options: dict[str, Any], stack: ExitStack) -> Wanted:
    """Build the API's JSON, without a name.

    Args:
        source: The word that names a source; None where a command was given, or nothing new is.
        options: Values of `spec_options`.
        stack: Closes what had to be opened.

    Raises:
        click.UsageError: they do not go together.
    """
    command: tuple[str, ...] = click.get_current_context().meta.get(COMMAND, ())
    if command and source is not None:
        raise click.UsageError("Give a source or a command, not both.")
    if command:
        given = [name for name in _OF_SOURCES if options[name] not in (None, ())]
        if given:
            raise click.UsageError(f"--{given[0].split('_')[-1]} goes with a source, not with a command.")
        return Wanted(document=_present({**_command(command, options), **_settings(options)}))
    if options["cwd"]:
        raise click.UsageError("--cwd goes with a command: a source runs in its own folder.")
    found = None if source is None else _source(source, stack)
    fields = {} if found is None else found.fields
    about = {name: list(value) if isinstance(value := options[name], tuple) else value for name in _OF_SOURCES}
    variables = {"environment_vars": environment_of(options["env"])} if options["env"] else {}
    # What the word itself says (a program's language) gives way to an option.
    document = _present({**fields, **_present(about), **variables, **_settings(options)})
    return Wanted(document=document, file=found.upload if found else None, source=found)


def _source(word: str, stack: ExitStack) -> Source:
    try:
        return source_of(word, stack)
    except NotThere as error:
        advice = "If it is the name: Missing the command to run, after `--`: NAME -- COMMAND [ARGUMENTS]..."
        raise click.UsageError(f"{error} {advice}") from error
    except Unusable as error:
        raise click.UsageError(str(error)) from error


def _command(command: tuple[str, ...], options: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {"command": command[0], "args": list(command[1:])}
    if options["cwd"]:
        config["cwd"] = options["cwd"]
    if options["env"]:
        config["env"] = environment_of(options["env"])
    return {"source_type": "mcp_config", "mcp_config": config}


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    return _present(
        {
            "language": options["language"],
            "restart": {"mode": options["restart"]} if options["restart"] else None,
            "sessions": options["sessions"],
            "labels": labels_of(options["labels"]),
            **keeping.keeping(options),
        }
    )


def _present(members: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in members.items() if value not in (None, {}, [], ())}

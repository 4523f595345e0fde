"""The root command: what there is, grouped by task; how a run ends, whichever way it does.

Command modules are imported when they are named, so that `corral up` pays for none of the others.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from click.shell_completion import shell_complete

from controlplane.cli.exits import EXIT_MEANING, CommandFailed, Exit, program

if TYPE_CHECKING:
    from collections.abc import Mapping

_Command = TypeVar("_Command", bound=Callable[..., Any])

SECTIONS: Mapping[str, Mapping[str, str]] = {
    "Start here": {"up": "up:up", "doctor": "doctor:doctor"},
    "Deploy": {
        "deploy": "deploy:deploy",
        "import": "importing:import_",
        "redeploy": "revisions:redeploy",
        "revisions": "revisions:revisions",
        "rollback": "revisions:rollback",
        "rm": "lifecycle:rm",
    },
    "Use": {
        "tools": "offers:tools",
        "prompts": "offers:prompts",
        "resources": "offers:resources",
        "call": "call:call",
        "connect": "connect:connect",
        "proxy": "proxy:proxy",
    },
    "Watch": {
        "ls": "listing:ls",
        "inspect": "listing:inspect",
        "logs": "logs:logs",
        "events": "events:events",
        "wire": "wiretap:wire",
        "incarnations": "incarnations:incarnations",
        "stats": "stats:stats",
        "usage": "usage:usage",
        "tui": "tui:tui",
    },
    "Operate": {"start": "lifecycle:start", "stop": "lifecycle:stop", "restart": "lifecycle:restart"},
    "Administer": {
        "context": "contexts:context",
        "secret": "secrets:secret",
        "cache": "cache:cache",
        "backup": "backup:backup",
        "restore": "backup:restore",
        "nodes": "nodes:nodes",
        "user": "users:user",
        "token": "tokens:token",
        "audit": "audit:audit",
        "completion": "completion:completion",
        "test": "checks:test",
    },
}
"""Every command by task: its name, and `module:attribute` below this package."""

JSON_ASKED = "corral.json"
"""Where a run keeps, for all its commands, whether `--json` was given."""
CONTEXT_ASKED = "corral.context"
"""Where a run keeps, for all its commands, the name that `--context` gave."""
COMPLETE_VARIABLE = "_CORRAL_COMPLETE"
"""Set by a shell that completes a word; the same however the command is called."""

EXAMPLES = (
    "{corral} up",
    "{corral} deploy memory -- npx -y @modelcontextprotocol/server-memory",
    "{corral} deploy .",
    "{corral} tools memory",
    '{corral} call memory tools/call \'{{"name": "read_graph", "arguments": {{}}}}\'',
    "{corral} connect memory --client cursor --write",
    "{corral} logs -f memory",
    "{corral} import ~/.cursor/mcp.json",
)
ENVIRONMENT = (
    ("CORRAL_URL", "The control plane's address, where it is not the one on this machine."),
    ("CORRAL_TOKEN", "The token for it."),
    ("CORRAL_CONTEXT", "The context, as --context: a control plane by name (`corral context ls`)."),
    ("CORRAL_HOME", "The data folder, whose `credentials` file names both when they are unset."),
    ("NO_COLOR", "No colours."),
)


class RootGroup(click.Group):
    """Loads commands on demand, lists them by task, and guesses what a mistyped one meant."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return [name for commands in SECTIONS.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  (click's signature)
        place = next((commands[cmd_name] for commands in SECTIONS.values() if cmd_name in commands), None)
        if place is None:
            return None
        module, attribute = place.split(":")
        command = getattr(importlib.import_module(f"controlplane.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            guess = f" Did you mean `{ctx.command_path} {near[0]}`?" if near else ""
            ctx.fail(f"There is no command {args[0]!r}.{guess}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            rows = []
            for name in commands:
                command = self.get_command(ctx, name)
                rows.append((f"{name:<10}", command.get_short_help_str(limit=100) if command else ""))
            _definitions(formatter, title, rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section(click.style("Examples", bold=True)):
            for example in EXAMPLES:
                formatter.write(f"{'':{formatter.current_indent}}{example.format(corral=ctx.command_path)}\n")
        _definitions(formatter, "Environment", ENVIRONMENT)
        _definitions(formatter, "Exit codes", [(str(int(code)), meaning) for code, meaning in EXIT_MEANING.items()])


def _definitions(formatter: click.HelpFormatter, title: str, rows: Any) -> None:
    with formatter.section(click.style(title, bold=True)):
        formatter.write_dl(list(rows), col_max=14)


def _contexts(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from controlplane.cli.choosing import complete_contexts  # noqa: PLC0415  (only a shell asks)

    return complete_contexts(context, parameter, incomplete)


def _choose_context(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.meta[CONTEXT_ASKED] = value


def context_option(command: _Command, *, hidden: bool = False) -> _Command:
    """Add `--context NAME`: which control plane a run is about. Every command that asks one takes it."""
    option = click.option(
        "--context",
        metavar="NAME",
        hidden=hidden,
        expose_value=False,
        callback=_choose_context,
        shell_complete=_contexts,
        help="The control plane of this name (`corral context ls`); without: the current one.",
    )
    return option(command)


@click.command(
    cls=RootGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="COMMAND [ARGUMENTS]...",
)
@click.version_option(package_name="corral", message="corral %(version)s")
@context_option
@click.option("--json", "as_json", is_flag=True, help="Print the API's JSON; commands that ask the API take this too.")
@click.pass_context
def root(context: click.Context, as_json: bool) -> None:
    """Run MCP servers as a service: deploy them, call them, watch them."""
    context.meta[JSON_ASKED] = as_json


def _show(failure: CommandFailed, *, as_json: bool) -> Exit:
    """Show a failure: the API's own JSON where that was asked for, else a block for people."""
    from controlplane.cli.screen import Screen, show_problem  # noqa: PLC0415  (`corral up` needs none of it)

    if as_json and failure.document is not None:
        Screen().json_bytes(failure.document)
    else:
        show_problem(Screen(), failure.problem)
    return failure.exit_code


def _quiet_end() -> Exit:
    """End without a word once the reader of our output (`| head`) has what it wanted."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.OK


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    completing = os.environ.get(COMPLETE_VARIABLE)
    if completing:
        return shell_complete(root, {}, program(), COMPLETE_VARIABLE, completing)
    as_json = False
    try:
        with root.make_context(program(), arguments) as context:
            try:
                root.invoke(context)
            finally:
                as_json = context.meta.get(JSON_ASKED, False)
        sys.stdout.flush()
    except CommandFailed as failure:
        return _show(failure, as_json=as_json)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        return _quiet_end()
    except (KeyboardInterrupt, click.Abort):
        return Exit.INTERRUPTED
    return Exit.OK


def main() -> NoReturn:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))

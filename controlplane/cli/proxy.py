"""`corral proxy`: an instance for clients that only start commands and speak stdio.

Owns the process: its input and output, its signals and its end. The conversation is `relay`'s, which is loaded when
the command runs, as it brings Trio along.
"""

from __future__ import annotations

import os
import sys

import click

from controlplane.cli.app import CONTEXT_ASKED, context_option
from controlplane.cli.choosing import chosen_target
from controlplane.cli.client import path_of, read_only
from controlplane.cli.exits import Exit, program
from controlplane.cli.session import examples, name_argument

EPILOG = examples(
    "{corral} connect memory --client claude-desktop --write",
    note="For the configuration of MCP clients, which start it and end it: `connect` writes that. It ends with 0 when "
    "its input ends. A control plane that is away, or a call that fails, is answered with a JSON-RPC error that says "
    "what to do; notes go to standard error.",
)


@click.command(short_help="Speak MCP over stdio for a client that cannot speak HTTP.", epilog=EPILOG)
@name_argument
@context_option
def proxy(name: str) -> None:
    """Pass MCP messages between standard input and output and an instance's endpoint."""
    target = chosen_target(os.environ, click.get_current_context().meta.get(CONTEXT_ASKED))
    if target.read_only:
        raise read_only(target, "An MCP client calls tools, which may change anything.")
    if sys.stdin is not None and sys.stdin.isatty():
        _note(f"waits for an MCP client's messages; `{program()} connect {name}` shows how a client starts this")
    from controlplane.cli.relay.process import serve  # noqa: PLC0415  (brings Trio along, and no help text needs it)

    code = serve(target, path_of("mcp", name), _note)
    if code is not Exit.OK:
        raise click.exceptions.Exit(code)


def _note(sentence: str) -> None:
    sys.stderr.write(f"corral proxy: {sentence}\n")
    sys.stderr.flush()

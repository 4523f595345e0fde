"""`corral deploy`: one MCP server, from a command line or from the API's own JSON."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve

from controlplane.cli.exits import CommandFailed, program
from controlplane.cli.inputs import parse_json, read_bytes
from controlplane.cli.outcome import interrupted, settle
from controlplane.cli.pairs import environment_of, labels_of
from controlplane.cli.progress import phases_shown
from controlplane.cli.session import Session, examples, json_option, pass_session, wait_option

if TYPE_CHECKING:
    from controlplane.cli.client import Answer

DEPLOY_PATH = "/api/v2/deploy"
WAIT_S = 300.0
"""A first `npx` or build may take minutes; it is watched meanwhile, and Ctrl-C leaves it running."""

EPILOG = examples(
    "{corral} deploy memory -- npx -y @modelcontextprotocol/server-memory",
    "{corral} deploy github -e GITHUB_PERSONAL_ACCESS_TOKEN -- npx -y @modelcontextprotocol/server-github",
    "{corral} deploy time --memory 256 -- uvx mcp-server-time",
    "{corral} deploy -f spec.json",
    note="-e NAME without a value takes it from your own environment, so that a secret is neither in the shell's "
    "history nor in the process list.",
)


class DeployCommand(click.Command):
    """Tells of `--` whoever forgot it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            advice = "If it belongs to the server's command, put `--` before that command."
            raise click.UsageError(f"{error.format_message()} {advice}", ctx) from error


@click.command(
    cls=DeployCommand, short_help="Deploy an MCP server: NAME -- COMMAND [ARGUMENTS], or -f FILE.", epilog=EPILOG
)
@click.argument("name", required=False, metavar="NAME")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND [ARGUMENTS]...")
@click.option("-f", "--file", metavar="FILE|-", help="The API's own JSON; NAME then overrides its name.")
@click.option(
    "-e", "--env", "env", multiple=True, metavar="NAME[=VALUE]", help="A variable for the server; repeatable."
)
@click.option("--cwd", help="The folder that the server starts in.")
@click.option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label; repeatable.")
@click.option("--memory", "memory_mb", type=click.IntRange(min=16), metavar="MIB", help="Ceiling of its memory.")
@click.option("--cpu", "cpu_percent", type=click.IntRange(min=1), metavar="PERCENT", help="Ceiling; 100 is one core.")
@click.option(
    "--restart", "restart", type=click.Choice(["always", "on-failure", "never"]), help="When to start it again."
)
@click.option(
    "--isolation", type=click.Choice(["auto", "process", "confined", "namespaced"]), help="How it is kept in."
)
@click.option("--sessions", type=click.Choice(["shared", "per-session"]), help="Whether clients share one process.")
@click.option("--idempotency-key", metavar="KEY", help="The same key and spec again answer the first result again.")
@wait_option(WAIT_S)
@json_option
@pass_session
def deploy(
    session: Session,
    /,
    *,
    name: str | None,
    command: tuple[str, ...],
    file: str | None,
    wait_s: float,
    idempotency_key: str | None,
    **options: Any,
) -> None:
    """Deploy one MCP server and wait until it runs.

    NAME -- COMMAND [ARGUMENTS]... is how every MCP client writes a server; put `--` before the command, so that its
    own options stay its own.
    """
    if file is not None:
        body = body_of_file(file, name, command, options)
    else:
        body = json.dumps(spec_of(name, command, **options)).encode()
    send(session, body, wait_s=wait_s, idempotency_key=idempotency_key)


def spec_of(name: str | None, command: tuple[str, ...], **options: Any) -> dict[str, Any]:
    """Build the API's JSON from a command line.

    Raises:
        click.UsageError: the name or the command is missing.
    """
    if not name or not command:
        missing = "the command to run, after `--`" if name else "a name and a command"
        raise click.UsageError(f"Missing {missing}: deploy NAME -- COMMAND [ARGUMENTS]...")
    config: dict[str, Any] = {"command": command[0], "args": list(command[1:])}
    if options["cwd"]:
        config["cwd"] = options["cwd"]
    if options["env"]:
        config["env"] = environment_of(options["env"])
    spec = {"name": name, "source_type": "mcp_config", "mcp_config": config, **_settings(options)}
    return {key: value for key, value in spec.items() if value not in (None, {})}


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    limits = {key: options[key] for key in ("memory_mb", "cpu_percent") if options[key] is not None}
    return {
        "limits": limits,
        "restart": {"mode": options["restart"]} if options["restart"] else None,
        "isolation": options["isolation"],
        "sessions": options["sessions"],
        "labels": labels_of(options["labels"]),
    }


def body_of_file(file: str, name: str | None, command: tuple[str, ...], options: dict[str, Any]) -> bytes:
    """Read the API's JSON; it is sent as it stands, unless NAME renames it.

    Raises:
        click.UsageError: no JSON object, or mixed with what belongs in it.
    """
    given = [key for key, value in options.items() if value not in (None, ())]
    if command or given:
        raise click.UsageError("With -f everything but NAME belongs in the file.")
    content = read_bytes(file)
    document = parse_json(content, file)
    if not isinstance(document, dict):
        raise click.UsageError(f"{file}: a JSON object is expected")
    return json.dumps({**document, "name": name}).encode() if name else content


def send(session: Session, body: bytes, *, wait_s: float, idempotency_key: str | None = None) -> None:
    """POST a deploy, show its phases, report what came out.

    Raises:
        CommandFailed: refused, failed, or not running within the wait.
    """
    name = str(json.loads(body).get("name", ""))
    began = time.monotonic()
    try:
        with phases_shown(session, name):
            answer = post_deploy(session, body, wait_s, idempotency_key)
    except KeyboardInterrupt:
        raise interrupted(session, name, "deploy") from None
    except CommandFailed as failure:
        raise _with_next_step(failure, name) from failure
    settle(session, answer, wanted="running", wait_s=wait_s, took_s=time.monotonic() - began)
    if not session.json and answer.document.get("status") == "running":
        session.screen.note(("Next: ", "dim"), f"{program()} tools {answer.document.get('name')}")


def _with_next_step(failure: CommandFailed, name: str) -> CommandFailed:
    """Say that an instance which did not come up is there nevertheless."""
    if failure.problem.code not in ("deploy_failed", "build_failed"):
        return failure
    advice = f"It stays, failed: `{program()} logs {name}` shows all its lines, `{program()} rm {name}` removes it."
    hint = "\n".join(filter(None, (failure.problem.hint, advice)))
    return evolve(failure, problem=evolve(failure.problem, hint=hint))


def post_deploy(session: Session, body: bytes, wait_s: float, idempotency_key: str | None = None) -> Answer:
    """Send one deploy request and wait as long as it says."""
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
    return session.api.request(
        "POST", DEPLOY_PATH, query={"wait": wait_s}, content=body, headers=headers, wait_s=wait_s
    )

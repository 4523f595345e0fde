"""`corral connect`: the configuration that lets an MCP client use an instance, shown or written."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import field, frozen

from controlplane.cli.client import path_of
from controlplane.cli.clientfile import Found, changed, find, replace
from controlplane.cli.clients import CLIENTS, Client, folders_of, masked
from controlplane.cli.exits import CommandFailed, Exit, Problem, program
from controlplane.cli.screen import Column
from controlplane.cli.session import Session, examples, json_option, name_argument, pass_session
from controlplane.cli.target import CHECKOUT, LOCAL, Target, credentials_path
from controlplane.cli.wiring import UNKNOWN, Place, Wiring, Wish, decide

if TYPE_CHECKING:
    from collections.abc import Mapping

PLACEHOLDER = "<token>"
STDIN = "-"

EPILOG = examples(
    "{corral} connect memory",
    "{corral} connect memory --client claude-code",
    "{corral} connect memory --client cursor --write",
    "{corral} connect memory --client vscode --write --project",
    note="No token is written where the client can do without: most take it from the environment, VS Code asks for it, "
    "and what is started as a command reads the credentials file. The file that is changed is kept as a copy; comments "
    "in it stay.",
)


def _client(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Client | None:
    return CLIENTS[value] if value else None


@click.command(short_help="Show or write the configuration of an MCP client.", epilog=EPILOG)
@name_argument
@click.option("-c", "--client", type=click.Choice(list(CLIENTS)), callback=_client, help="The client.")
@click.option("-w", "--write", is_flag=True, help="Write it into the client's file; without: only show it.")
@click.option("--project", is_flag=True, help="For the project in this folder, not for all you do.")
@click.option(
    "--file", "file", type=click.Path(dir_okay=False, path_type=Path), help="Another file than the usual one."
)
@click.option("--name", "entry_name", metavar="TEXT", help="The server's name there; without: the instance's.")
@click.option("--force", is_flag=True, help="Replace another server of the same name.")
@click.option("--transport", type=click.Choice(["http", "stdio"]), help="HTTP, or a command that speaks stdio.")
@click.option("--token-env", "variable", metavar="VAR", help="The variable that the client takes the token from.")
@click.option("--token", metavar="TOKEN|-", help="The token to put into the file; - reads it from standard input.")
@click.option("--new-token", is_flag=True, help="Make a token of the role caller, and put it into the file.")
@json_option
@pass_session
def connect(session: Session, /, *, name: str, client: Client | None, write: bool, **wishes: Any) -> None:
    """Show how an MCP client uses an instance, or write it into the client's own configuration."""
    instance = session.api.get(path_of("instances", name)).document
    place = _place(session, name, instance)
    if client is None:
        if write:
            raise click.UsageError("--write needs --client: whose file is it?")
        _show_all(session, place, instance)
        return
    wish = Wish(
        wishes["transport"], wishes["variable"], _given(wishes["token"]), wishes["new_token"], wishes["project"]
    )
    task = Task(session, decide(client, place, wish), wishes["entry_name"] or str(instance.get("name")), wishes["file"])
    task = task if wish.project is False else task.in_project()
    if write:
        task.write(force=wishes["force"])
    else:
        task.show()


def _given(token: str | None) -> str | None:
    return sys.stdin.readline().strip() if token == STDIN else token


def _place(session: Session, name: str, instance: Mapping[str, Any]) -> Place:
    target = session.target
    reference = str(instance.get("instance_id")) if "/" in name else name
    home = os.environ.get("CORRAL_HOME", "").strip()
    return Place(
        reference=reference,
        url=target.url + path_of("mcp", reference),
        server=target.url,
        command=_corral(),
        home=str(Path(home).expanduser().absolute()) if home else "",
        has_credentials=target.origin == str(credentials_path(os.environ)) or _keeps_token(target),
        context=target.context,
    )


def _keeps_token(target: Target) -> bool:
    """Whether a context has the token, for the one that is started as a command to find."""
    return target.context != LOCAL and target.token is not None and not target.read_only


def _corral() -> tuple[str, ...]:
    """Return the words that start this `corral` from anywhere: clients have a PATH and a folder of their own."""
    for path in (CHECKOUT / "corral", Path(sys.executable).with_name("corral")):
        if path.is_file() and os.access(path, os.X_OK):
            return (str(path),)
    return (sys.executable, "-m", "controlplane.cli")


def _show_all(session: Session, place: Place, instance: Mapping[str, Any]) -> None:
    """Show the endpoint, the form that most clients share, and whom we know."""
    entry = {"type": "http", "url": place.url, "headers": {"Authorization": f"Bearer {PLACEHOLDER}"}}
    generic = {"mcpServers": {str(instance.get("name")): entry}}
    if session.json:
        listed = {"url": place.url, "config": generic, "clients": list(CLIENTS)}
        session.screen.json_bytes(json.dumps(listed).encode())
        return
    session.screen.facts([("endpoint", place.url), ("transport", "Streamable HTTP, with a bearer token")])
    session.screen.pretty(generic)
    columns = (Column("CLIENT", style="bold"), Column("NAME"))
    session.screen.table(columns, [[client.name, client.title] for client in CLIENTS.values()])
    session.screen.note(
        ("Next: ", "dim"), f"{program()} connect {place.reference} --client CLIENT [--write]; for a token of its own: ",
        f"{program()} token create NAME --role caller",
    )  # fmt: skip


@frozen
class Task:
    """One client's entry on its way."""

    session: Session
    wiring: Wiring
    name: str
    named_file: Path | None = field(default=None)

    def in_project(self) -> Task:
        """Return the same for the file of the project in this folder."""
        assert self.wiring.client.project is not None
        return Task(self.session, self.wiring, self.name, self.named_file or Path.cwd() / self.wiring.client.project)

    @property
    def file(self) -> Path:
        if self.named_file is not None:
            return self.named_file
        files = self.wiring.client.files(folders_of(os.environ, Path.home(), sys.platform))
        return next((path for path in files if path.exists()), files[0])

    def show(self) -> None:
        """Show what belongs into the file."""
        wiring = self._with_token()
        if self.session.json:
            self._as_json(wiring, "shown", None)
            return
        self.session.screen.raw(snippet(wiring, self.name))
        self.session.screen.note(("Goes into ", "dim"), str(self.file), ". ", wiring.client.after)
        self._say_token(wiring, "what is shown above")

    def write(self, *, force: bool) -> None:
        """Put the entry into the file.

        Raises:
            CommandFailed: the file cannot be changed safely, or holds another server of this name.
        """
        client, form = self.wiring.client, self.wiring.client.form
        if form == "yaml":
            raise click.UsageError(f"{client.title} keeps its servers in YAML, which is only shown: leave --write out.")
        found = find(self.file, form)
        there = found.server(client.keys, self.name)
        if there is not None and _same(there, self.wiring, self.name):
            self._say("unchanged", found, None, self.wiring)
            return
        if there is not None and not force:
            raise self._taken(found)
        self._text(found, self.wiring)  # a file that cannot be changed must not cost a token
        wiring = self._with_token()
        backup = replace(found, self._text(found, wiring))
        self._say("written", found, backup, wiring)

    def _text(self, found: Found, wiring: Wiring) -> str:
        return changed(found, wiring.client.keys, self.name, wiring.entry(self.name), wiring.question())

    def _taken(self, found: Found) -> CommandFailed:
        problem = Problem(
            title=f"{found.path} has another server named {self.name!r}",
            detail="It was left as it is.",
            hint="--force replaces it; --name TEXT gives this one another name.",
        )
        return CommandFailed(problem, Exit.FAILED)

    def _with_token(self) -> Wiring:
        """Make the token where one is wanted: only now, when nothing else can go wrong."""
        if self.wiring.credential != "new":
            return self.wiring
        wish = {"name": f"{self.wiring.client.name}: {self.name}"[:100], "role": "caller"}
        return self.wiring.with_token(str(self.session.api.post("/tokens", wish).document["token"]))

    def _as_json(self, wiring: Wiring, outcome: str, backup: Path | None) -> None:
        asks = wiring.question()
        document = {
            "outcome": outcome,
            "client": wiring.client.name,
            "name": self.name,
            "url": wiring.place.url,
            "transport": wiring.transport,
            "file": str(self.file),
            "keys": list(wiring.client.keys),
            "entry": wiring.entry(self.name),
            "inputs": [] if asks is None else [asks],
            "backup": None if backup is None else str(backup),
            "credential": {"from": wiring.credential, "variable": wiring.variable},
        }
        self.session.screen.json_bytes(json.dumps(document).encode())

    def _say(self, outcome: str, found: Found, backup: Path | None, wiring: Wiring) -> None:
        if self.session.json:
            self._as_json(wiring, outcome, backup)
            return
        screen = self.session.screen
        if outcome == "unchanged":
            screen.line((self.name, "bold"), f" is in {found.path} already")
            return
        screen.line((self.name, "bold"), f" is in {found.path} now")
        if backup is not None:
            screen.note(("Backup: ", "dim"), str(backup))
        screen.note(("Next: ", "dim"), wiring.client.after)
        self._say_token(wiring, "the file")
        if wiring.holds_token and found.others_may_read:
            screen.note(("Note: ", "bold yellow"), f"other users of this machine may read {found.path}.")

    def _say_token(self, wiring: Wiring, where: str) -> None:
        title, client = wiring.client.title, wiring.client.name
        make = f"{program()} token create {client} --role caller"
        named = f"{client}: {self.name}"
        kept = "credentials file" if wiring.place.context == LOCAL else f"context {wiring.place.context}"
        said = {
            "environment": f"{title} takes it from {wiring.variable} in its environment: "
            f"export {wiring.variable}=$({make})",
            "question": f"{title} asks for it once and keeps it encrypted: {make}",
            "proxy": f"none in {where}; {title} starts `corral proxy`, which reads your {kept}.",
            "new": f"a new one of the role caller is in {where}, and nowhere else; "
            f"{program()} token rm {named!r} ends it.",
            "given": f"yours is in {where}.",
        }
        self.session.screen.note(("Token: ", "dim"), said[wiring.credential])


def _same(there: Any, wiring: Wiring, name: str) -> bool:
    """Whether an entry is what we would write; a token that was made for it before is as good as a new one."""
    entry = wiring.entry(name)
    if wiring.credential == "new":
        return bool(masked(there, UNKNOWN) == masked(entry, UNKNOWN))
    return bool(there == entry)


def snippet(wiring: Wiring, name: str) -> str:
    """Return an entry in the language of the client's file, with all that stands around it."""
    document: Any = wiring.entry(name)
    if wiring.client.form == "toml":
        from controlplane.cli.tomltext import with_table  # noqa: PLC0415  (one client's)

        return with_table("", (*wiring.client.keys, name), document).rstrip()
    for key in reversed((*wiring.client.keys, name)):
        document = {key: document}
    if wiring.client.form == "yaml":
        return _yaml(document)
    asks = wiring.question()
    return json.dumps(document | ({} if asks is None else {"inputs": [asks]}), indent=2, ensure_ascii=False)


def _yaml(document: Mapping[str, Any], indent: str = "") -> str:
    """Write members as YAML: every text in quotes, lists and empty tables as JSON, which YAML takes."""
    lines = []
    for key, value in document.items():
        word = key if re.fullmatch(r"[A-Za-z_][\w-]*", key) else json.dumps(key)
        if isinstance(value, dict) and value:
            lines.append(f"{indent}{word}:\n{_yaml(value, indent + '  ')}")
        else:
            lines.append(f"{indent}{word}: {json.dumps(value)}")
    return "\n".join(lines)

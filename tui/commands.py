"""The words of the command line (`:`) and of the palette (`ctrl+p`): one table for both. Pure.

What a command does is what a key does: it goes to a place, shows the selected instance, or does a verb to it.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Literal

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Does = Literal["go", "instance", "verb", "context", "theme", "shoot", "keys", "reload", "last", "quit"]
Argument = Literal["", "instance?", "context?", "theme?", "text?"]


@frozen
class Command:
    """One command. `takes` is what may follow it; without, the selected instance is meant, or one is asked for.

    Args:
        name: Its word.
        does: The kind of thing it does.
        to: Where it goes, which tab it shows, or which verb it is.
        help: One line.
        takes: What may follow it.
        aliases: Other words for it.
    """

    name: str
    does: Does
    to: str
    help: str
    takes: Argument = ""
    aliases: tuple[str, ...] = ()


@frozen
class Order:
    """A command line that makes sense: the command, and what followed it."""

    command: Command
    argument: str = ""


@frozen
class Complaint:
    """A command line that does not, and what to do about it."""

    text: str


COMMANDS: tuple[Command, ...] = (
    Command("fleet", "go", "fleet", "All instances; what follows is a filter", "text?", ("instances", "i")),
    Command("open", "instance", "overview", "All of one instance", "instance?", ("describe", "d")),
    Command("logs", "instance", "logs", "Its log", "instance?", ("l",)),
    Command("events", "instance", "events", "What happened to it", "instance?"),
    Command("metrics", "instance", "metrics", "Its CPU, memory, calls and latency", "instance?", ("m",)),
    Command("tools", "instance", "tools", "What it offers", "instance?"),
    Command("inspect", "instance", "inspector", "Call its tools by hand", "instance?", ("call", "inspector")),
    Command("wire", "instance", "wire", "Its JSON-RPC traffic, live", "instance?", ("w",)),
    Command("start", "verb", "start", "Start it", "instance?"),
    Command("stop", "verb", "stop", "Stop it", "instance?"),
    Command("restart", "verb", "restart", "Restart it", "instance?"),
    Command(
        "redeploy", "verb", "redeploy", "Its source anew, beside what runs until it answers", "instance?", ("update",)
    ),
    Command("delete", "verb", "delete", "Stop and remove it", "instance?", ("rm",)),
    Command("deploy", "go", "deploy", "Deploy a new one", aliases=("create", "new")),
    Command("timeline", "go", "timeline", "What happens in the fleet", aliases=("history",)),
    Command("alerts", "go", "alerts", "What needs a person", aliases=("inbox", "a")),
    Command("host", "go", "host", "The control plane, its services and its machine", aliases=("stats", "pulses")),
    Command("usage", "go", "usage", "Quotas, and what is used of them", aliases=("quotas",)),
    Command("tokens", "go", "tokens", "Who may come in"),
    Command("contexts", "context", "", "Another control plane; @name does it too", "context?", ("ctx", "context")),
    Command("theme", "theme", "", "Other colours", "theme?", ("skin",)),
    Command("reload", "reload", "", "Read the fleet anew", aliases=("refresh",)),
    Command("last", "last", "", "The view before this one", aliases=("-",)),
    Command("screenshot", "shoot", "", "Save this screen as an SVG", aliases=("dump",)),
    Command("help", "keys", "", "Every key of this screen", aliases=("keys", "?")),
    Command("quit", "quit", "", "Leave", aliases=("q", "q!", "exit")),
)


def find(name: str) -> Command | None:
    """The command with this name or alias."""
    return next((c for c in COMMANDS if name == c.name or name in c.aliases), None)


def parse(line: str) -> Order | Complaint:
    """Read a command line: a command, then what it takes. `@name` stands for `contexts name`."""
    name, _, argument = line.strip().removeprefix(":").partition(" ")
    argument = argument.strip()
    if name.startswith("@"):
        name, argument = "contexts", name[1:] or argument
    command = find(name.lower())
    if command is None:
        near = difflib.get_close_matches(name.lower(), [c.name for c in COMMANDS], 1)
        guess = f" Did you mean :{near[0]}?" if near else " :help lists them."
        return Complaint(f"There is no command {name or 'without a name'}.{guess}")
    if argument and not command.takes:
        return Complaint(f":{command.name} takes nothing after it")
    return Order(command, argument)


def hint(line: str) -> str:
    """What the command that is being typed does; empty while it is none."""
    name = line.strip().partition(" ")[0].lower()
    if not name:
        return ""
    begun = (command for command in COMMANDS if command.name.startswith(name))
    command = find("contexts" if name.startswith("@") else name) or next(begun, None)
    if command is None:
        return ""
    takes = f" [{command.takes.rstrip('?')}]" if command.takes else ""
    return f"{command.name}{takes}: {command.help}"


def suggestions(instances: Iterable[str], contexts: Iterable[str], themes: Iterable[str]) -> list[str]:
    """Every command line worth completing to, commands first."""
    pools: dict[Argument, list[str]] = {
        "instance?": list(instances),
        "context?": list(contexts),
        "theme?": list(themes),
    }
    return [c.name for c in COMMANDS] + list(_completed(pools))


def _completed(pools: dict[Argument, list[str]]) -> Iterator[str]:
    for command in COMMANDS:
        for word in (command.name, *command.aliases):
            yield from (f"{word} {argument}" for argument in pools.get(command.takes, ()))
    yield from (f"@{name}" for name in pools["context?"])

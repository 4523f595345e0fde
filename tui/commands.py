"""The words of the command line (`:`) and of the palette (`ctrl+p`): one table for both. Pure.

A command is carried out by the app's action of the same name (`go`, `verb`, …), so there is one way to do each thing.
"""

from __future__ import annotations

import difflib
from typing import Literal

from attrs import frozen

Argument = Literal["", "instance", "instance?", "context", "theme", "text?"]


@frozen
class Command:
    """One command. `takes` is what may follow it; a `?` says that nothing is the selected one, or none."""

    name: str
    action: str
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
    Command("fleet", "go('fleet')", "All instances; what follows is a filter", "text?", ("instances", "i")),
    Command("open", "instance('overview')", "All of one instance", "instance?", ("describe", "d")),
    Command("logs", "instance('logs')", "Its log", "instance?", ("l",)),
    Command("events", "instance('events')", "What happened to it", "instance?"),
    Command("metrics", "instance('metrics')", "Its CPU, memory, calls and latency", "instance?", ("m",)),
    Command("inspect", "instance('inspector')", "Call its tools by hand", "instance?", ("call", "tools")),
    Command("wire", "instance('wire')", "Its JSON-RPC traffic, live", "instance?", ("w",)),
    Command("start", "verb('start')", "Start it", "instance?"),
    Command("stop", "verb('stop')", "Stop it", "instance?"),
    Command("restart", "verb('restart')", "Restart it", "instance?"),
    Command("delete", "verb('delete')", "Stop and remove it", "instance?", ("rm",)),
    Command("deploy", "go('deploy')", "Deploy a new one", aliases=("create", "new")),
    Command("timeline", "go('timeline')", "What happens in the fleet", aliases=("history",)),
    Command("alerts", "go('alerts')", "What needs a person", aliases=("inbox", "a")),
    Command("host", "go('host')", "The control plane, its services and its machine", aliases=("stats", "pulses")),
    Command("usage", "go('usage')", "Quotas, and what is used of them", aliases=("quotas",)),
    Command("tokens", "go('tokens')", "Who may come in"),
    Command("contexts", "context", "Another control plane", "context", ("ctx", "context")),
    Command("theme", "theme", "Other colours", "theme", ("skin",)),
    Command("screenshot", "shoot", "Save this screen as an SVG", aliases=("dump",)),
    Command("help", "keys", "Every key of this screen", aliases=("keys", "?")),
    Command("quit", "quit", "Leave", aliases=("q", "q!", "exit")),
)


def find(name: str) -> Command | None:
    """The command with this name or alias."""
    return next((c for c in COMMANDS if name == c.name or name in c.aliases), None)


def parse(line: str) -> Order | Complaint:
    """Read a command line: a command, then what it takes. `@name` stands for `contexts name`."""
    name, _, argument = line.strip().partition(" ")
    argument = argument.strip()
    if name.startswith("@"):
        name, argument = "contexts", name[1:] or argument
    command = find(name.lower())
    if command is None:
        near = difflib.get_close_matches(name.lower(), [c.name for c in COMMANDS], 1)
        guess = f" Did you mean :{near[0]}?" if near else " :help lists them."
        return Complaint(f"There is no command {name}.{guess}")
    if argument and not command.takes:
        return Complaint(f":{command.name} takes nothing after it")
    return Order(command, argument)


def suggestions(instances: list[str], contexts: list[str], themes: list[str]) -> list[str]:
    """Every command line worth completing to, commands first."""
    pools = {"instance": instances, "instance?": instances, "context": contexts, "theme": themes}
    lines = [c.name for c in COMMANDS]
    lines += [f"{c.name} {word}" for c in COMMANDS for word in pools.get(c.takes, ())]
    return lines

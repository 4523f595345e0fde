"""How a server is to be kept, on the command line: limits, isolation, network and mounts. Pure."""

from __future__ import annotations

from typing import Any

import click

from controlplane.cli.pairs import split_pair

LIMITS = {
    "memory": "memory_mb",
    "cpu": "cpu_percent",
    "disk": "disk_mb",
    "processes": "processes",
    "open-files": "open_files",
    "call-timeout": "call_timeout_s",
    "log": "log_kb_s",
}
"""What people write, and the API's name, which is taken as well."""
FRACTIONS = frozenset({"call_timeout_s"})
MODES = ("ro", "rw")

OPTIONS = (
    click.option("--memory", "memory_mb", type=click.IntRange(min=16), metavar="MIB", help="Ceiling of its memory."),
    click.option(
        "--cpu", "cpu_percent", type=click.IntRange(min=1), metavar="PERCENT", help="Ceiling; 100 is one core."
    ),
    click.option(
        "--limit",
        "limits",
        multiple=True,
        metavar="NAME=NUMBER",
        help="disk (MiB), processes, open-files, call-timeout (s) or log (KiB/s); repeatable.",
    ),
    click.option(
        "--isolation",
        type=click.Choice(["auto", "process", "confined", "namespaced"]),
        help="How far it is shut in; auto: as far as the host can.",
    ),
    click.option(
        "--network",
        type=click.Choice(["open", "allow", "none"]),
        help="Where it may connect to: any public host, those of --allow-host only, nowhere.",
    ),
    click.option(
        "--allow-host",
        "allow_hosts",
        multiple=True,
        metavar="HOST[:PORT]",
        help="A host that it may connect to, and no other; repeatable.",
    ),
    click.option(
        "--mount",
        "mounts",
        multiple=True,
        metavar="SOURCE[:TARGET][:ro|rw]",
        help="A folder of the host that it sees, read-only unless rw; repeatable.",
    ),
)


def keeping(options: dict[str, Any]) -> dict[str, Any]:
    """Make the request's members of the values of `OPTIONS`; what was not said is left out.

    Raises:
        click.UsageError: a value cannot be read, or two contradict each other.
    """
    members = {
        "limits": limits_of(options),
        "isolation": options["isolation"],
        "network": network_of(options["network"], options["allow_hosts"]),
        "mounts": [mount_of(text) for text in options["mounts"]],
    }
    return {name: value for name, value in members.items() if value}


def limits_of(options: dict[str, Any]) -> dict[str, float]:
    """Read --memory, --cpu and --limit."""
    limits: dict[str, float] = {key: options[key] for key in ("memory_mb", "cpu_percent") if options[key] is not None}
    for text in options["limits"]:
        name, number = split_pair(text, "NAME")
        key = LIMITS.get(name, name)
        if key not in LIMITS.values():
            raise click.BadParameter(f"there is no limit {name!r}: expected one of {', '.join(LIMITS)}")
        try:
            limits[key] = float(number) if key in FRACTIONS else int(number)
        except ValueError:
            raise click.BadParameter(f"{number!r} is not a number, for the limit {name}") from None
    return limits


def network_of(mode: str | None, hosts: tuple[str, ...]) -> dict[str, Any] | None:
    """Read --network and --allow-host, which by itself means `allow`."""
    if hosts and mode not in (None, "allow"):
        raise click.UsageError(f"--allow-host goes with --network allow, not with {mode}.")
    if mode == "allow" and not hosts:
        raise click.UsageError("--network allow needs --allow-host HOST, or use --network none.")
    if hosts:
        return {"mode": "allow", "hosts": list(hosts)}
    return {"mode": mode} if mode else None


def mount_of(text: str) -> dict[str, str]:
    """Read --mount; without a target it is seen where it is."""
    words = text.split(":")
    mode = words.pop() if words[-1] in MODES else "ro"
    if len(words) not in (1, 2) or not all(word.startswith("/") for word in words):
        raise click.BadParameter(f"{text!r} is not SOURCE[:TARGET][:ro|rw], with absolute paths")
    return {"source": words[0], "target": words[-1], "mode": mode}

"""References to secrets in a request: where they stand, and what is wrong with them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from controlplane.core.secretrefs import BadReference, mentions, names_in, names_in_env

if TYPE_CHECKING:
    from controlplane.deploy.refusals import Refusals
    from controlplane.model import Command
    from controlplane.wire.deploy import McpConfigIn

HINT = "corral secret set {}"


def check_written(config: McpConfigIn | None, variables: Mapping[str, str], refusals: Refusals) -> None:
    """Refuse references that cannot be read."""
    for pointer, value in _given(config, variables):
        try:
            names_in(value)
        except BadReference as error:
            refusals.add(pointer, str(error))


def check_known(
    config: McpConfigIn | None, variables: Mapping[str, str], known: Collection[str], refusals: Refusals
) -> None:
    """Refuse references to what is not there; they can be read, as `check_written` has seen."""
    for pointer, value in _given(config, variables):
        for name in sorted(names_in(value).difference(known)):
            refusals.add(pointer, f"there is no secret {name}", HINT.format(name))


def names_wanted(config: McpConfigIn | None, variables: Mapping[str, str]) -> frozenset[str]:
    """The secrets that a request names."""
    return names_in_env(dict(_given(config, variables)))


def refuse_elsewhere(command: Command | None, refusals: Refusals) -> None:
    """References belong into the environment: every user of a host can read the arguments of its processes."""
    if command is None:
        return
    words = {"command": command.command, "cwd": command.cwd or ""}
    words |= {f"args/{position}": arg for position, arg in enumerate(command.args)}
    for place, word in words.items():
        if mentions(word):
            refusals.add(
                f"/mcp_config/{place}",
                "`${secret:…}` works in env only: every user of the host can read arguments",
                "name the secret in mcp_config.env, and let the server read its environment",
            )


def _given(config: McpConfigIn | None, variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Every value of a request, with its place."""
    for pointer, env in (("/mcp_config/env", config.env if config else {}), ("/environment_vars", variables)):
        yield from ((f"{pointer}/{name}", value) for name, value in env.items())

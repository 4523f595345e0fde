"""What may be said about the files of a source, whatever its language: what is never right is refused here. Pure."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controlplane.deploy.refusals import Refusals

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_BUT_SPACE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def is_path(text: str) -> bool:
    """Whether a path stays inside the source, on every system, and is no option to any tool."""
    if text.startswith(("-", "/", "~")) or "\\" in text or _CONTROL.search(text):
        return False
    return ".." not in PurePosixPath(text).parts


def dependencies(names: tuple[str, ...], refusals: Refusals) -> tuple[str, ...]:
    """Names of packages. What a language's own tool makes of them is looked at with the source."""
    for index, name in enumerate(names):
        if (wrong := _never_a_package(name)) is not None:
            refusals.add(
                f"/dependencies/{index}", wrong, "packages of the language's own registry, by name and version"
            )
    return names


def _never_a_package(name: str) -> str | None:
    if name.startswith("-"):
        return "is an option, not a package"
    if _CONTROL.search(name):
        return "must not contain line breaks or other control characters"
    if name != name.strip():
        return "must not begin or end with a space"
    if "://" in name or name.startswith(("git+", "file:", "link:")):
        return "is an address: only packages of a registry are installed"
    if ";" in name or "\\" in name:
        return "must not contain ; or \\"
    if ".." in re.split(r"[/@]", name):
        return "must not contain .. as a part of a path"
    if name.startswith(("/", "./", "~")):
        return "is a path, not a package"
    return None


def build_command(command: str | None, refusals: Refusals) -> str | None:
    """An own build step, which is for `sh` to read; refused is what is no command at all."""
    if command is not None and (command.lstrip().startswith("-") or not command.strip()):
        refusals.add("/build_command", "is not a command")
    elif command is not None and _CONTROL_BUT_SPACE.search(command):
        refusals.add("/build_command", "must not contain control characters")
    return command

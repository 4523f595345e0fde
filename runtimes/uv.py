"""Environments made by uv, as Python sources and Python packages both need them. Pure.

They are moved after they are made, and their packages are shared read-only. So: relocatable scripts; modules compiled
now, with no reference to a file's time, since no server can do it later; copies of the cache's files, so that a
server that writes to its own does not write to the cache. Pythons are the host's: none is downloaded.
"""

from __future__ import annotations

from runtimes.recipe import Env, Place, Step, Word

VENV = ".venv"
PYTHON = Place("tree", f"{VENV}/bin/python")
SCRIPTS = Place("tree", f"{VENV}/bin")
ENV: Env = (
    ("UV_CACHE_DIR", Place("cache", "uv")),
    ("UV_PYTHON_DOWNLOADS", "never"),
    ("UV_LINK_MODE", "copy"),
    ("UV_COMPILE_BYTECODE", "1"),
    ("PYC_INVALIDATION_MODE", "UNCHECKED_HASH"),
    ("UV_NO_PROGRESS", "1"),
    ("UV_SYSTEM_CERTS", "1"),
)
NEEDS = ("python", "uv")


def make_environment(versions: str | None) -> Step:
    """Make the environment, with the first Python of the host that fits; one that came with the source is replaced.

    Args:
        versions: A range such as `>=3.12`, or one version; None: Corral's own Python.
    """
    # Said in any case, or uv follows a `.python-version` that names one the host has not got.
    argv = ("uv", "venv", "--relocatable", "--clear", "--no-project", "--python", versions or "python", VENV)
    return Step(name="make a Python environment", argv=argv, env=ENV)


def install(*what: Word, env: Env = ()) -> Step:
    """Install requirements into the environment, all resolved together."""
    argv = ("uv", "pip", "install", "--python", PYTHON, *what)
    return Step(name="install dependencies", argv=argv, env=(*ENV, *env))


def sync(env: Env = ()) -> Step:
    """Install what `uv.lock` has, and the project itself, without its development tools."""
    argv = ("uv", "sync", "--frozen", "--no-dev", "--no-editable")
    placed: Env = (("UV_PROJECT_ENVIRONMENT", Place("tree", VENV)), ("UV_PYTHON", PYTHON))
    return Step(name="install dependencies", argv=argv, env=(*ENV, *placed, *env))

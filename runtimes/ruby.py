"""Ruby sources: with a `Gemfile`, or single files.

What runs: the request's `entry_point`, else `server.rb`, `main.rb`, `app.rb`, the root's only Ruby file, then the same
in `lib`, then the only file of `bin` or `exe`.

Bundler installs what the `Gemfile` names, exactly as `Gemfile.lock` has it where there is one, into the tree. The
request's `dependencies` (`name`, `name@1.2`, `name@~>1.2`) are added to it, or to a new one. Its process is Ruby
itself, with Bundler's setup loaded: the same as `bundle exec`, without a second start.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runtimes import entry, requirements, shell
from runtimes.recipe import Env, Place, Recipe, Step, Wish

if TYPE_CHECKING:
    from runtimes.tree import SourceTree

NAMES: tuple[str, ...] = ("ruby", "rb")
SUFFIXES: tuple[str, ...] = (".rb",)
TOOLS: tuple[str, ...] = ("ruby", "bundle")
FILE_NAME = "server.rb"

GEMS = "vendor/bundle"
_NAMES = ("server.rb", "main.rb", "app.rb")
_ENV: Env = (
    ("BUNDLE_GEMFILE", Place("tree", "Gemfile")),
    ("BUNDLE_PATH", Place("tree", GEMS)),
    ("BUNDLE_WITHOUT", "development:test"),
)
_BUILD_ENV: Env = (*_ENV, ("BUNDLE_USER_CACHE", Place("cache", "bundle")), ("BUNDLE_SILENCE_ROOT_WARNING", "1"))


def guess(tree: SourceTree) -> str | None:
    """By a `Gemfile`."""
    return "there is a Gemfile" if "Gemfile" in tree else None


def plan(tree: SourceTree, wish: Wish) -> Recipe:
    """Plan a Ruby source.

    Raises:
        CannotPlan: there is nothing to run, or a wish cannot be met.
    """
    wanted = requirements.checked(wish.dependencies, requirements.RUBYGEMS)
    file = _file(tree, wish)
    bundled = "Gemfile" in tree or bool(wanted)
    steps = _bundle(tree, wanted) if bundled else ()
    if wish.build_command is not None:
        steps = (*steps, shell.own_build(wish.build_command, env=_BUILD_ENV if bundled else ()))
    return Recipe(
        language=NAMES[0],
        entry_point=file,
        files=() if "Gemfile" in tree or not wanted else (("Gemfile", _gemfile(wanted)),),
        steps=steps,
        argv=("ruby", *(("-rbundler/setup",) if bundled else ()), file),
        env=_ENV if bundled else (),
        needs=TOOLS if bundled else ("ruby",),
        installed=(GEMS,) if bundled else (),
    )


def _file(tree: SourceTree, wish: Wish) -> str:
    if wish.entry_point is not None:
        makes = wish.build_command is not None
        return entry.path_of(wish.entry_point) if makes else entry.named_file(wish.entry_point, tree)
    programs = [name for name in sorted(tree.files) if name.startswith(("bin/", "exe/")) and name.count("/") == 1]
    found = tree.first(*_NAMES) or tree.only_file(*SUFFIXES) or tree.first(*(f"lib/{name}" for name in _NAMES))
    if found is None and len(programs) != 1:
        there = ", ".join(entry.nearest(FILE_NAME, tree)) or "no file at all"
        raise entry.refusal(
            f"nothing says which file to run; there is: {there}",
            hint="name an entry_point; looked for: server.rb, main.rb, app.rb, an only .rb file, an only file of bin or exe",
        )
    return found or programs[0]


def _bundle(tree: SourceTree, wanted: tuple[str, ...]) -> tuple[Step, ...]:
    added = [_parts(text) for text in wanted] if "Gemfile" in tree else []
    adding = tuple(
        Step(
            name="add a dependency",
            argv=("bundle", "add", name, *((f"--version={version}",) if version else ()), "--skip-install"),
            env=_BUILD_ENV,
        )
        for name, version in added
    )
    frozen: Env = (("BUNDLE_FROZEN", "true"),) if "Gemfile.lock" in tree and not wanted else ()
    return (*adding, Step(name="install dependencies", argv=("bundle", "install"), env=(*_BUILD_ENV, *frozen)))


def _gemfile(wanted: tuple[str, ...]) -> str:
    """JSON's strings are Ruby's, for what requirements may hold."""
    lines = ['source "https://rubygems.org"']
    for name, version in map(_parts, wanted):
        lines.append(f"gem {json.dumps(name)}" + (f", {json.dumps(version)}" if version else ""))
    return "\n".join([*lines, ""])


def _parts(requirement: str) -> tuple[str, str | None]:
    match = requirements.RUBYGEMS.pattern.fullmatch(requirement)
    assert match is not None, "it was checked"
    return match["name"], match["version"]

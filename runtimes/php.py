"""PHP sources: with a `composer.json`, or single files.

What runs: the request's `entry_point`, else the only program of `composer.json`'s `bin`, else `server.php`,
`index.php`, `main.php`, `app.php`, the root's only PHP file, then the same in `src`, `bin` and `public`.

Composer installs what `composer.json` names, exactly as `composer.lock` has it where there is one, without development
packages. The request's `dependencies` (`vendor/package`, `vendor/package:^1.0`) are added to it, or to a new one.
What PHP has to say of errors goes to stderr: by default it goes to stdout, where the protocol is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runtimes import entry, requirements, shell
from runtimes.recipe import Env, Place, Recipe, Step, Wish

if TYPE_CHECKING:
    from runtimes.tree import SourceTree

NAMES: tuple[str, ...] = ("php",)
SUFFIXES: tuple[str, ...] = (".php",)
TOOLS: tuple[str, ...] = ("php", "composer")
FILE_NAME = "server.php"

VENDOR = "vendor"
_NAMES = ("server.php", "index.php", "main.php", "app.php")
_FOLDERS = ("src", "bin", "public")
_QUIET = ("--no-interaction", "--no-progress")
_ENV: Env = (
    ("COMPOSER_HOME", Place("cache", "composer")),
    ("COMPOSER_CACHE_DIR", Place("cache", "composer/cache")),
    ("COMPOSER_ALLOW_SUPERUSER", "1"),  # where Corral is root, no build is
)


def guess(tree: SourceTree) -> str | None:
    """By a `composer.json`."""
    return "there is a composer.json" if "composer.json" in tree else None


def plan(tree: SourceTree, wish: Wish) -> Recipe:
    """Plan a PHP source.

    Raises:
        CannotPlan: there is nothing to run, or a wish cannot be met.
    """
    wanted = requirements.checked(wish.dependencies, requirements.PACKAGIST)
    file = _file(tree, wish)
    composed = "composer.json" in tree or bool(wanted)
    install = Step(name="install dependencies", argv=("composer", "install", "--no-dev", *_QUIET), env=_ENV)
    require = Step(
        name="install dependencies", argv=("composer", "require", "--update-no-dev", *_QUIET, *wanted), env=_ENV
    )
    steps: tuple[Step, ...] = (require if wanted else install,) if composed else ()
    if wish.build_command is not None:
        steps = (*steps, shell.own_build(wish.build_command, f"{VENDOR}/bin" if composed else None, _ENV))
    return Recipe(
        language=NAMES[0],
        entry_point=file,
        files=(("composer.json", "{}\n"),) if wanted and "composer.json" not in tree else (),
        steps=steps,
        argv=("php", "-d", "display_errors=stderr", file),
        needs=TOOLS if composed else ("php",),
        installed=(VENDOR,) if composed else (),
    )


def _file(tree: SourceTree, wish: Wish) -> str:
    if wish.entry_point is not None:
        makes = wish.build_command is not None
        return entry.path_of(wish.entry_point) if makes else entry.named_file(wish.entry_point, tree)
    inside = (f"{folder}/{name}" for folder in _FOLDERS for name in _NAMES)
    found = _program(tree) or tree.first(*_NAMES) or tree.only_file(*SUFFIXES) or tree.first(*inside)
    if found is None:
        there = ", ".join(entry.nearest(FILE_NAME, tree)) or "no file at all"
        raise entry.refusal(
            f"nothing says which file to run; there is: {there}",
            hint="name an entry_point; looked for: bin of composer.json, server.php, index.php, main.php, an only .php file",
        )
    return found


def _program(tree: SourceTree) -> str | None:
    try:
        data = json.loads(tree.text("composer.json") or "")
    except (ValueError, RecursionError):
        return None  # Composer will say so better
    named = data.get("bin") if isinstance(data, dict) else None
    names = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    return names[0] if len(names) == 1 and isinstance(names[0], str) and names[0] in tree else None

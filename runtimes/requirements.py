"""Dependencies that a deploy request may name: plain requirements of each language's own registry. Pure.

They become arguments of a package tool, so whatever such a tool takes for an option, a URL, a path, another registry
or a further instruction is refused here. A source that needs such a thing says so in a manifest of its own.
"""

from __future__ import annotations

import re

from attrs import frozen

from runtimes.recipe import CannotPlan

MAX_DEPENDENCIES = 500
"""Of one request; the largest servers seen name some 60."""
MAX_LENGTH = 200
"""Characters of one requirement: a name, its extras and a range."""

PYPI_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
PYPI_EXTRAS = rf"\[\s*{PYPI_NAME}(?:\s*,\s*{PYPI_NAME})*\s*\]"
PYPI_VERSION = r"[A-Za-z0-9](?:[A-Za-z0-9._+!-]|\.\*)*"
_PYPI_CLAUSE = rf"(?:===|==|~=|!=|<=|>=|<|>)\s*{PYPI_VERSION}"
NPM_NAME = r"(?:@[A-Za-z0-9][A-Za-z0-9._~-]*/)?[A-Za-z0-9][A-Za-z0-9._~-]*"
NPM_RANGE = r"[A-Za-z0-9^~<>=*][A-Za-z0-9.^~<>=|* +-]*"
_ARCHIVE = re.compile(r"\.(?:tgz|tar|tar\.gz)$", re.IGNORECASE)
"""npm takes such a name or version for a file."""


@frozen
class Registry:
    """How one language's requirements are written: a pattern, an example, and the manifest for all else."""

    name: str
    pattern: re.Pattern[str]
    example: str
    manifest: str


PYPI = Registry(
    "PyPI",
    re.compile(rf"{PYPI_NAME}\s*(?:{PYPI_EXTRAS})?\s*(?:{_PYPI_CLAUSE}(?:\s*,\s*{_PYPI_CLAUSE})*)?"),
    "httpx>=0.27",
    "requirements.txt or pyproject.toml",
)
NPM = Registry("npm", re.compile(rf"{NPM_NAME}(?:@{NPM_RANGE})?"), "zod@^3.25", "package.json")
GO = Registry(
    "Go modules",
    re.compile(
        r"[a-z0-9][a-z0-9-]*(?:\.[a-z0-9-]+)+(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+(?:@[A-Za-z0-9][A-Za-z0-9.+-]*)?"
    ),
    "github.com/modelcontextprotocol/go-sdk@v1.0.0",
    "go.mod",
)
CRATES = Registry(
    "crates.io",
    re.compile(
        r"(?P<name>[A-Za-z][A-Za-z0-9_-]*)"
        r"(?:\[(?P<features>[A-Za-z0-9_][A-Za-z0-9_+./?-]*(?:\s*,\s*[A-Za-z0-9_][A-Za-z0-9_+./?-]*)*)\])?"
        r"(?:\s*(?:@|=)\s*(?P<version>[\^~=<>]{0,2}\s*[0-9*][A-Za-z0-9.+*-]*(?:\s*,\s*[\^~=<>]{0,2}\s*[0-9][A-Za-z0-9.+*-]*)*))?"
    ),
    "serde[derive]@1.0",
    "Cargo.toml",
)
RUBYGEMS = Registry(
    "RubyGems",
    re.compile(
        r"(?P<name>[A-Za-z0-9_][A-Za-z0-9._-]*)(?:[@:](?P<version>(?:~>|>=|<=|=|<|>)?\s*[0-9][A-Za-z0-9.]*))?",
    ),
    "mcp@~>0.3",
    "Gemfile",
)
PACKAGIST = Registry(
    "Packagist",
    re.compile(
        r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?/[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?(?::[A-Za-z0-9^~<>=*][A-Za-z0-9.^~<>=|*, @-]*)?"
    ),
    "mcp/sdk:^0.1",
    "composer.json",
)
NUGET = Registry(
    "NuGet",
    re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:@[0-9][A-Za-z0-9.*+-]*)?"),
    "ModelContextProtocol@0.4.0",
    "project file",
)
DENO = Registry(
    "JSR and npm",
    re.compile(rf"jsr:@[a-z0-9-]+/[a-z0-9-]+(?:@{NPM_RANGE})?|npm:{NPM_NAME}(?:@{NPM_RANGE})?"),
    "npm:zod@^3.25",
    "deno.json",
)


def checked(dependencies: tuple[str, ...], registry: Registry) -> tuple[str, ...]:
    """The requirements, without spaces around them.

    Raises:
        CannotPlan: one of them is not a plain requirement, or there are too many.
    """
    if len(dependencies) > MAX_DEPENDENCIES:
        raise refusal(f"{len(dependencies)} dependencies are too many; at most {MAX_DEPENDENCIES}")
    found = tuple(text.strip() for text in dependencies)
    for text in found:
        if not fits(text, registry):
            raise refusal(
                f"{text[:MAX_LENGTH]!r} is not a plain requirement of {registry.name}, such as {registry.example}",
                hint=f"options, URLs, paths, markers and other registries belong into the source's own {registry.manifest}",
            )
    return found


def fits(text: str, registry: Registry) -> bool:
    """Whether this is a plain requirement."""
    if len(text) > MAX_LENGTH or not registry.pattern.fullmatch(text):
        return False
    return registry is not NPM or not any(_ARCHIVE.search(part) for part in text.rsplit("@", 1))


def none_of(dependencies: tuple[str, ...], language: str, manifest: str) -> None:
    """For a language whose dependencies can only be said in a manifest.

    Raises:
        CannotPlan: some are named all the same.
    """
    if dependencies:
        raise refusal(f"dependencies of {language} are not installed by name", hint=f"name them in {manifest}")


def refusal(message: str, *, hint: str | None = None) -> CannotPlan:
    """Dependencies that cannot be taken."""
    return CannotPlan(message, field="dependencies", hint=hint)

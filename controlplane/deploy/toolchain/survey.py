"""Which languages can be run here: what `GET /runtimes` and `corral doctor` say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from controlplane.deploy.toolchain.find import Found, Refused
from controlplane.deploy.toolchain.hints import how_to_get
from runtimes import catalog

if TYPE_CHECKING:
    from controlplane.deploy.toolchain.versions import Answer

DISPENSABLE = frozenset({"bundle", "composer", "mvn"})
"""Package managers without which a source that names no packages runs all the same."""
BROKEN = "does not run"


@frozen(kw_only=True)
class ToolVersion:
    """A tool that instances can run; `version` is None where it does not say."""

    name: str
    version: str | None


@frozen(kw_only=True)
class Runtime:
    """What there is of a language.

    Args:
        language: By its own name.
        usable: Whether a source in it can be run; one with packages of its own may need what is missing.
        tools: Of those that it needs, the ones that are there.
        missing: The others.
        hint: How to get what is missing; None if nothing is.
    """

    language: str
    usable: bool
    tools: tuple[ToolVersion, ...] = ()
    missing: tuple[str, ...] = ()
    hint: str | None = None


def languages() -> dict[str, tuple[str, ...]]:
    """The tools that each language needs."""
    return {runtime.NAMES[0]: runtime.TOOLS for runtime in catalog.RUNTIMES}


def report(found: Found, answers: Mapping[str, Answer]) -> tuple[Runtime, ...]:
    """Put together what was found and what the tools said."""
    return tuple(_runtime(language, tools, found, answers) for language, tools in languages().items())


def _runtime(language: str, tools: Iterable[str], found: Found, answers: Mapping[str, Answer]) -> Runtime:
    wrong = {name: why for name in tools if (why := _why_not(name, found, answers)) is not None}
    there = [name for name in tools if name not in wrong]
    return Runtime(
        language=language,
        usable=DISPENSABLE.issuperset(wrong),
        tools=tuple(ToolVersion(name=name, version=answers[name].version) for name in there),
        missing=tuple(wrong),
        hint=advice(wrong) if wrong else None,
    )


def _why_not(name: str, found: Found, answers: Mapping[str, Answer]) -> str | None:
    """Why instances cannot run a tool; empty: there is none; None: they can."""
    tool = found.get(name)
    if tool is None:
        return ""
    if isinstance(tool, Refused):
        return tool.why
    answer = answers.get(name)
    return None if answer is not None and answer.runs else BROKEN


def advice(wrong: Mapping[str, str]) -> str:
    """One sentence about tools that cannot be run: why, where they are there, and how to get them."""
    reasons = [f"{name} {why}" for name, why in wrong.items() if why]
    return ": ".join(part for part in (", ".join(reasons), how_to_get(wrong)) if part)

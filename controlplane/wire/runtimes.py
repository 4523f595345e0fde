"""What the API says about the languages that can be run here."""

from __future__ import annotations

from attrs import frozen

from controlplane.wire.fields import bounded


@frozen(kw_only=True)
class ToolOut:
    """A tool that instances can run."""

    name: str = bounded(description="As on an instance's PATH.")
    version: str | None = bounded(description="As it says itself; null: it does not.")


@frozen(kw_only=True)
class RuntimeOut:
    """A language, and whether sources in it can be built and run here."""

    language: str = bounded(description="The `language` of a deploy.")
    usable: bool = bounded(description="Nothing is missing.")
    tools: list[ToolOut] = bounded(description="Of what it needs, that which is there.")
    missing: list[str] = bounded(description="The rest.")
    hint: str | None = bounded(description="How to get what is missing; null: nothing is.")


@frozen(kw_only=True)
class RuntimesOut:
    """All languages that Corral knows."""

    runtimes: list[RuntimeOut]

"""The documentation says what the code does: settings, problems, exit codes, and links that lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from controlplane.cli.exits import EXIT_MEANING
from controlplane.config import Config
from controlplane.errors import PROBLEMS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def rows(page: str) -> dict[str, list[str]]:
    """The tables of a page: first cell, without its backquotes, to the other cells."""
    lines = (ROOT / "docs/reference" / page).read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {first.strip("`"): others for first, *others in cells}


def test_the_settings_page_names_every_variable_with_its_meaning() -> None:
    documented = rows("settings.md")
    meanings = {field.metadata["name"]: field.metadata["doc"] for field in attrs.fields(Config)}

    assert {name: documented[name][-1] for name in meanings if name in documented} == meanings
    assert {name for name in documented if re.fullmatch("[A-Z_]+", name)} == set(meanings)


def test_the_settings_page_states_the_defaults_in_force() -> None:
    documented = rows("settings.md")
    simple = {f.metadata["name"]: f.default for f in attrs.fields(Config) if isinstance(f.default, (int, float, str))}

    stated = {name: documented[name][0].strip("`") for name in simple}
    assert stated == {name: _stated(value) for name, value in simple.items()}


def _stated(value: float | str | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_the_api_page_lists_every_problem_with_its_status() -> None:
    documented = {code: cells[0] for code, cells in rows("api.md").items() if code in PROBLEMS}

    assert documented == {code: str(error.status) for code, error in PROBLEMS.items()}


def test_the_command_line_page_lists_every_exit_code() -> None:
    documented = rows("command-line.md")

    assert {code: documented[str(int(code))][0] for code in EXIT_MEANING} == dict(EXIT_MEANING)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    broken = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]

    assert broken == []

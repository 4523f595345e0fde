"""The page of metrics, its description, the alerts and the dashboard say the same: no panel asks for what is not there."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import pytest
import trio
import yaml
from attrs import define, evolve, field

from controlplane.bus import BusStatistics
from controlplane.cluster.roster import Elsewhere, Node, Roster
from tests.web.fakes_api import serving
from tests.web.test_system import _work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.web.fakes_api import Api

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "observability"
OF_PROMETHEUS = {"up": set[str]()}
"""What it makes itself."""
TARGET_LABELS = {"job", "instance"}
"""What it adds to every series."""
WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
SELECTOR = re.compile(r'([a-zA-Z_:][\w:]*)\s*\{((?:[^"{}]|"(?:[^"\\]|\\.)*")*)\}')
MATCHER = re.compile(r'\s*([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*,?')
GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+")
LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')


@define
class Page:
    """What a page has: families with type and meaning, and each sample name's labels with their values."""

    text: str = ""
    families: dict[str, tuple[str, str]] = field(factory=dict)
    labels: dict[str, dict[str, set[str]]] = field(factory=lambda: defaultdict(lambda: defaultdict(set)))

    @classmethod
    def of(cls, text: str) -> Page:
        page = cls(text)
        meanings: dict[str, str] = {}
        for line in text.splitlines():
            if line.startswith("# HELP "):
                name, meanings[name] = line.removeprefix("# HELP ").split(" ", 1)
            elif line.startswith("# TYPE "):
                name, kind = line.removeprefix("# TYPE ").split(" ")
                page.families[name] = kind, meanings[name]
            elif (found := SAMPLE.fullmatch(line)) is not None:
                known = page.labels[found[1]]
                for label, value in LABEL.findall(found[2] or ""):
                    known[label].add(value)
        return page

    def labels_of(self, family: str) -> set[str]:
        names = (family, f"{family}_bucket", f"{family}_sum", f"{family}_count")
        return {label for name in names if name in self.labels for label in self.labels[name]} - {"le"}


@pytest.fixture(scope="module")
def page() -> Page:
    return trio.run(_fetch)


async def _fetch() -> Page:
    async with serving(home=Path("/")) as api:
        _work(api)
        for runner in api.supervisor.runners():
            if runner.last_sample is not None:
                runner.last_sample = evolve(runner.last_sample, disk_mb=1.0)
        await api.admin("GET", "/instances")  # or no answer is counted yet
        _join(api)
        return Page.of((await api.admin("GET", "/metrics")).text)


@define
class LeaseOfMine:
    """What the page asks a membership for."""

    runs: bool = True
    lease_left_s: float = 4.5


@define
class RelayOfMine:
    """What the page asks a bus for."""

    def statistics(self) -> BusStatistics:
        return BusStatistics(available=True, sent=5, heard=4, missed=1, waiting=2, refused=3)


def _join(api: Api) -> None:
    """Make it one of three nodes, of which one has died; each holds an instance, and another is held by nobody."""
    ids = [UUID(int=number) for number in range(1, 4)]
    services = api.services
    services.roster = Roster(ids[0], is_alone=False)
    services.roster.take_nodes(Node(id=each, url="http://x", version="1", is_live=each != ids[2]) for each in ids)
    services.roster.take_held(Elsewhere(uuid4(), "alice", f"held-{n}", by) for n, by in enumerate([*ids[1:], None]))
    services.membership, services.bus = cast("Any", LeaseOfMine()), cast("Any", RelayOfMine())


def expressions() -> Iterator[tuple[str, str]]:
    """Where it stands, and the expression."""
    rules = yaml.safe_load((FOLDER / "corral.rules.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    board = json.loads((FOLDER / "corral.dashboard.json").read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            series, label = variable["definition"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
            yield variable["name"], f"count by ({label}) ({series})"


def complaints(page: Page, expression: str) -> list[str]:
    """What an expression asks for that no page has."""
    found: list[str] = []
    asked: set[str] = set()
    for name, matchers in SELECTOR.findall(expression):
        asked.add(name)
        assert MATCHER.sub("", matchers).strip() == "", f"cannot read {matchers!r}"
        for label, operator, value in MATCHER.findall(matchers):
            found += _complain_of_matcher(page, name, label, operator, value)
    rest = SELECTOR.sub(lambda match: f" {match[1]} ", expression)
    grouped = {label.strip() for _, labels in GROUPING.findall(rest) for label in labels.split(",") if label.strip()}
    rest = re.sub(r"\[[^\]]*\]", "", GROUPING.sub("", rest))
    asked |= {name for name in re.findall(r"[a-zA-Z_:][\w:]*(?!\w*\s*\()", rest) if name not in WORDS}
    found += [f"no series {name}" for name in asked if name not in page.labels and name not in OF_PROMETHEUS]
    known = TARGET_LABELS | {label for name in asked if name in page.labels for label in page.labels[name]}
    return found + [f"no label {label}" for label in grouped - known]


def _complain_of_matcher(page: Page, name: str, label: str, operator: str, value: str) -> list[str]:
    if label in TARGET_LABELS or name in OF_PROMETHEUS:
        return []
    values = page.labels[name].get(label) if name in page.labels else None
    if values is None:
        return [f"{name} has no label {label}"]
    is_open = value.startswith("$") or operator in {"=~", "!~"} or name == "corral_http_requests_total"
    return [] if is_open or value in values else [f'{name} never has {label}="{value}"']


def test_every_expression_asks_for_what_is_there(page: Page) -> None:
    wrong = {where: found for where, expression in expressions() if (found := complaints(page, expression))}

    assert wrong == {}


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("rate(corral_orphans[5m]) > 0", []),
        ("sum by (name) (corral_orphan)", ["no series corral_orphan", "no label name"]),
        ('corral_instances{state="failed"}', ["corral_instances has no label state"]),
        ('corral_instances{status="broken"}', ['corral_instances never has status="broken"']),
        ("sum by (colour) (corral_instances)", ["no label colour"]),
    ],
)
def test_an_expression_that_asks_for_more_is_found(page: Page, expression: str, found: list[str]) -> None:
    assert complaints(page, expression) == found


@pytest.mark.parametrize(
    "line",
    [
        'corral_nodes{state="live"} 2',
        'corral_nodes{state="lost"} 1',
        "corral_node_may_run 1",
        "corral_node_lease_seconds 4.5",
        'corral_instances_held{holder="this"} 3',
        'corral_instances_held{holder="other"} 1',
        'corral_instances_held{holder="nobody"} 2',
        'corral_handed_on_total{outcome="answered"} 0',
        'corral_bus_events_total{outcome="lost"} 1',
        "corral_bus_refused_total 3",
        "corral_bus_waiting 2",
    ],
)
def test_the_page_tells_of_the_other_nodes(page: Page, line: str) -> None:
    assert line in page.text.splitlines()


async def test_one_that_is_alone_may_run_and_has_no_lease_and_no_bus() -> None:
    async with serving() as api:
        lines = (await api.admin("GET", "/metrics")).text.splitlines()
        others = [line for line in lines if line.startswith(("corral_node", "corral_bus"))]
        assert others == ['corral_nodes{state="live"} 1', 'corral_nodes{state="lost"} 0', "corral_node_may_run 1"]


def test_the_page_of_metrics_is_described_as_it_is(page: Page) -> None:
    lines = (ROOT / "docs/reference/metrics.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    described = {name.strip("`"): (kind, labels, meaning) for name, kind, labels, meaning in rows}
    real = {
        name: (kind, ", ".join(f"`{label}`" for label in sorted(page.labels_of(name))), meaning)
        for name, (kind, meaning) in page.families.items()
    }

    assert described == real


def test_alerts_have_a_severity_a_summary_and_a_name_of_their_own() -> None:
    rules = [r for g in yaml.safe_load((FOLDER / "corral.rules.yml").read_text())["groups"] for r in g["rules"]]

    assert len({rule["alert"] for rule in rules}) == len(rules)
    assert {rule["labels"]["severity"] for rule in rules} == {"page", "ticket"}
    assert all(rule["annotations"]["summary"] for rule in rules)


def test_the_dashboard_is_whole() -> None:
    board = json.loads((FOLDER / "corral.dashboard.json").read_text())
    panels = board["panels"]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert [panel["title"] for panel in panels if panel["type"] == "row"] == [
        "Fleet",
        "Instances",
        "Control plane",
        "Host",
        "Nodes",
    ]
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels if panel["type"] != "row")
    names = {variable["name"] for variable in board["templating"]["list"]} | {"__rate_interval", "__range"}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels)))
    assert used <= names
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_example_scrapes_with_a_token_from_a_file() -> None:
    example = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    (job,) = example["scrape_configs"]

    assert job["metrics_path"] == "/metrics"
    assert job["authorization"].keys() == {"credentials_file"}
    assert all((FOLDER / name).exists() for name in example["rule_files"])

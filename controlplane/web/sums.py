"""What several nodes say of themselves, added up: documents in, a document out. Pure.

Sums are of what happens now, or has happened since a node started. What the
database keeps is the same at every node and is taken from one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from controlplane.core.latency import BUCKETS, Histogram
from controlplane.core.lifecycle import PUBLIC_STATUS, Desired
from controlplane.web.views import language_of, milliseconds

if TYPE_CHECKING:
    from controlplane.model import Instance

Document = Mapping[str, Any]
LATENCY = "latency"
"""Where a node tells another the counts behind its quantiles, which cannot be added up themselves."""
ADDED_QUOTAS = frozenset({"instances", "builds", "memory_mb", "memory", "cpu", "processes"})
"""Of an owner's: what is counted from instances that are there."""


def stats_of_fleet(own: Document, parts: Sequence[Document], rest: Iterable[Instance] = ()) -> dict[str, Any]:
    """`/stats` of all nodes; `rest` are instances that no node answers for. Facts of one node stay those of our own."""
    alone = list(rest)
    documents = [own, *parts]
    latency = Histogram()
    for document in documents:
        latency.merge(histogram_of(document["calls"].get(LATENCY)))
    calls = {name: sum(document["calls"][name] for document in documents) for name in ("total", "errors", "in_flight")}
    by_status = _added(document["instances"]["by_status"] for document in documents)
    by_language = _added(document["instances"]["by_language"] for document in documents)
    by_status.update(PUBLIC_STATUS[instance.state] for instance in alone)
    by_language.update(language_of(instance.spec) for instance in alone)
    return {
        **own,
        "instances": {
            "total": sum(by_status.values()),
            "by_status": dict(by_status),
            "by_language": dict(by_language),
        },
        "calls": {**calls, **quantiles(latency)},
        "restarts": sum(document["restarts"] for document in documents) + sum(each.restarts for each in alone),
        "fleet": {
            name: round(sum(document["fleet"][name] for document in documents), 2)
            for name in ("cpu_percent", "memory_mb", "processes")
        },
        "subscribers": sum(document["subscribers"] for document in documents),
        "orphans": sum(document["orphans"] for document in documents),
        "dropped": dict(_added(document["dropped"] for document in documents)),
        "isolation": {
            **own["isolation"],
            "in_force": dict(_added(document["isolation"]["in_force"] for document in documents)),
        },
    }


def quantiles(latency: Histogram) -> dict[str, float | None]:
    """As `/stats` shows them."""
    return {f"p{q}_ms": milliseconds(latency.quantile(q / 100)) for q in (50, 95, 99)}


def counts_of(latency: Histogram) -> dict[str, Any]:
    """A histogram as one node tells it another."""
    return {"counts": latency.counts, "total_s": latency.total_s}


def histogram_of(told: Document | None) -> Histogram:
    """As it was told; empty for what was not, or by a version that counts otherwise."""
    counts = list(told["counts"]) if told is not None else []
    if told is None or len(counts) != BUCKETS:
        return Histogram()
    return Histogram(counts, sum(counts), float(told["total_s"]))


def usage_of_fleet(own: Document, parts: Sequence[Document], rest: Iterable[Instance] = ()) -> dict[str, Any]:
    """`/usage` of all nodes; `rest` are the instances, the owner's and others', that no node answers for."""
    alone = list(rest)
    mine = [instance for instance in alone if instance.owner == own["owner"]]
    owners = [owner for document in [own, *parts] for owner in document["owners"]]
    if own["owners"] or any(part["owners"] for part in parts):
        owners += [_owner_of(instance) for instance in alone]
    by_name: dict[str, list[Document]] = {}
    for owner in owners:
        by_name.setdefault(owner["name"], []).append(owner)
    return {
        **own,
        "quotas": [_quota(row, parts, mine) for row in own["quotas"]],
        "total": _owner_sum([own["total"], *(part["total"] for part in parts), *map(_owner_of, mine)]),
        "owners": [_owner_sum(by_name[name]) for name in sorted(by_name)],
    }


def _quota(row: Document, parts: Sequence[Document], alone: Sequence[Instance]) -> Document:
    if row["scope"] != "owner" or row["name"] not in ADDED_QUOTAS:
        return row
    theirs = [other for part in parts for other in part["quotas"] if other["name"] == row["name"]]
    used = row["used"] + sum(other["used"] for other in theirs)
    match row["name"]:
        case "instances":
            used += len(alone)
        case "memory_mb":
            used += sum(it.spec.limits.memory_mb for it in alone if it.desired is Desired.RUNNING)
    limit = row["limit"]
    if row["name"] == "builds" and limit is not None:
        limit += sum(other["limit"] or 0 for other in theirs)  # every node has places of its own
    return {**row, "used": round(used, 2), "limit": limit}


def _owner_of(instance: Instance) -> Document:
    nothing = dict.fromkeys(("running", "memory_mb", "cpu_percent", "processes", "calls", "errors"), 0)
    return {"name": instance.owner, "instances": 1, **nothing}


def _owner_sum(rows: Sequence[Document]) -> dict[str, Any]:
    names = [name for name in rows[0] if name != "name"]
    return {"name": rows[0]["name"], **{name: round(sum(row[name] for row in rows), 2) for name in names}}


def _added(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total

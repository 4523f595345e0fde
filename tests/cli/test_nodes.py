"""`corral nodes`, and what `corral doctor` makes of it."""

from __future__ import annotations

from typing import Any

from controlplane.cli.hostchecks import GOOD, POOR
from tests.cli.fake_api import document

ONE = {"id": "n1", "url": "http://10.0.0.1:8000", "version": "1.2", "live": True, "lease_age_s": 0.4, "instances": 3}
OTHER = {"id": "n2", "url": "http://10.0.0.2:8000", "version": "1.2", "live": True, "lease_age_s": 1.0, "instances": 0}
DEAD = OTHER | {"live": False, "lease_age_s": 95.0}
STATS: dict[str, Any] = {"orphans": 0, "dropped": {}, "instances": {"total": 0, "by_status": {}}}


def nodes(*rows, unheld=0):
    return document({"nodes": [{"asked": number == 0, **row} for number, row in enumerate(rows)], "unheld": unheld})


def checks(api, corral, said):
    api.on("GET /health", document({"status": "healthy", "services": {}, "version": "1.2", "uptime_s": 5.0}))
    api.on("GET /stats", document(STATS))
    api.on("GET /nodes", said)
    return {check["name"]: check for check in corral("doctor", "--json").json["checks"]}


def test_nodes_are_listed_with_their_leases_and_what_they_hold(api, corral):
    api.on("GET /nodes", nodes(ONE, DEAD, unheld=2))
    result = corral("nodes")
    header, first, second = result.out.splitlines()
    assert header.split() == ["ID", "URL", "VERSION", "LEASE", "INSTANCES"]
    assert first.split() == ["n1", "http://10.0.0.1:8000", "(asked)", "1.2", "stands", "3"]
    assert "ran out, renewed 1m35s ago" in second
    assert "2 instances are held by none" in result.err


def test_the_document_is_shown_as_it_came(api, corral):
    api.on("GET /nodes", nodes(ONE))
    assert corral("nodes", "--json").json["nodes"][0]["id"] == "n1"


def test_a_node_whose_lease_ran_out_is_a_warning(api, corral):
    found = checks(api, corral, nodes(ONE, DEAD, unheld=1))
    assert (found["lost node"]["verdict"], found["unheld"]["verdict"]) == (POOR, POOR)
    assert "http://10.0.0.2:8000" in found["lost node"]["found"]
    assert "Start it again; if it is gone for good, do nothing" in found["lost node"]["fix"]


def test_several_nodes_that_are_there_are_well(api, corral):
    assert checks(api, corral, nodes(ONE, OTHER))["nodes"]["verdict"] == GOOD


def test_of_a_node_that_is_alone_nothing_is_said(api, corral):
    assert not {"lost node", "nodes", "unheld"} & checks(api, corral, nodes(ONE)).keys()

"""`corral audit`: what it asks, and what it prints."""

from __future__ import annotations

import pytest

from tests.cli.fake_api import document

ROW = {
    "timestamp": "2026-11-20T14:02:11.480Z",
    "actor": "admin",
    "credential": "c",
    "address": "192.0.2.10",
    "action": "stopInstance",
    "target": "11111111-2222-3333-4444-555555555555",
    "name": "memory",
    "owner": "grace",
    "status": 200,
    "request_id": "r-1",
    "count": 1,
}
SIGN_IN = {
    **ROW,
    "actor": None,
    "action": "signIn",
    "target": "",
    "name": None,
    "owner": None,
    "status": 401,
    "request_id": "",
    "count": 8,
}


def test_it_shows_who_did_what_newest_first(api, corral):
    api.on("GET /audit", document({"audit": [ROW, SIGN_IN], "next_cursor": "more"}))
    result = corral("audit")
    head, first, second = (line.split() for line in result.out.splitlines())
    assert head == ["WHEN", "WHO", "ACTION", "TARGET", "OWNER", "STATUS", "FROM", "REQUEST"]
    assert first[-7:] == ["admin", "stopInstance", "memory", "grace", "200", "192.0.2.10", "r-1"]
    assert second[-8:] == ["-", "signIn", "-", "-", "401", "×8", "192.0.2.10", "-"]
    assert "the newest 2" in result.err
    assert api.asked_for("GET /audit")[0].query == {"limit": "50"}


def test_its_options_are_the_routes_filters(api, corral):
    api.on("GET /audit", document({"audit": [], "next_cursor": None}))
    result = corral(
        *("audit", "--actor", "grace", "--action", "patchUser", "--action", "addToken", "--target", "memory"),
        *("--owner", "ada", "--status", "4xx", "--status", "5xx", "--since", "2026-11-20T00:00:00Z", "-n", "7"),
    )
    assert result.code == 0
    assert "The audit log has no such row." in result.err
    query = api.asked_for("GET /audit")[0].query
    assert query.pop("since").startswith("2026-11-20T00:00:00")
    assert query == {
        "actor": "grace",
        "action": "patchUser,addToken",
        "target": "memory",
        "owner": "ada",
        "status": "4xx,5xx",
        "limit": "7",
    }


@pytest.mark.parametrize("option", ["--since", "--until"])
@pytest.mark.parametrize("command", [["audit"], ["logs", "memory"]], ids=["audit", "logs"])
def test_a_time_that_is_none_is_refused_with_the_name_of_its_option(corral, command, option):
    result = corral(*command, option, "foo")
    assert result.code == 2
    assert f"Invalid value for {option}" in result.err


def test_as_json_it_is_what_the_route_answered(api, corral):
    api.on("GET /audit", document({"audit": [ROW], "next_cursor": None}))
    assert corral("audit", "--json").json["audit"] == [ROW]

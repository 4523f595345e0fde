"""`corral import`: goes on past failures and sums up."""

from __future__ import annotations

import json

import pytest

from controlplane.cli import importing
from tests.cli.fake_api import EVIDENCE, document, instance, problem

DEPLOY = "POST /api/v2/deploy"


@pytest.fixture
def servers(tmp_path):
    path = tmp_path / "mcp.json"
    servers = {name: {"command": "npx", "args": [name], "env": {"KEY": "s3cret"}} for name in ("one", "two", "three")}
    path.write_text(json.dumps({"mcpServers": {**servers, "web": {"url": "https://x"}}}))
    return str(path)


def test_import_goes_on_past_a_failure_and_sums_up(api, corral, servers):
    refused = problem(422, "deploy_failed", phase="handshake", stderr_tail=["boom"])
    api.on(DEPLOY, document(instance("one"), 201), refused, document(instance("three"), 201))
    result = corral("import", servers)
    assert result.code == 1
    assert result.out.splitlines() == [
        "✓ one is running",
        "✗ two failed",
        "✓ three is running",
        "- web a remote server: there is nothing to run",
        "2 deployed, 1 failed, 1 skipped",
    ]
    assert "boom" in result.err


def test_import_of_what_is_there_already_leaves_it_and_is_no_failure(api, corral, servers):
    api.on(DEPLOY, problem(409, "conflict"))
    result = corral("import", servers, "two")
    assert result.code == 0
    assert "- two is deployed already" in result.out
    assert len(api.asked_for(DEPLOY)) == 1


def test_import_counts_an_instance_that_failed_later(api, corral, servers):
    api.on(DEPLOY, document(instance("one", "failed", last_error=EVIDENCE), 200))
    result = corral("import", servers, "one")
    assert result.code == 1
    assert "0 deployed, 1 failed" in result.out
    assert EVIDENCE["reason"] in result.err


def test_import_waits_for_the_limit_of_deploys(api, corral, servers, monkeypatch):
    monkeypatch.setattr(importing, "LONGEST_PAUSE_S", 0.01)
    api.on(DEPLOY, problem(429, "rate_limited"), document(instance("one"), 201))
    result = corral("import", servers, "one")
    assert (result.code, result.out.splitlines()[0]) == (0, "✓ one is running")


@pytest.mark.parametrize("refusal", [problem(401, "unauthorized"), problem(403, "forbidden")], ids=["401", "403"])
def test_import_stops_where_every_server_would_fail_alike(api, corral, servers, refusal):
    api.on(DEPLOY, refusal)
    assert corral("import", servers).code == 4
    assert len(api.asked_for(DEPLOY)) == 1


def test_import_as_json_is_one_document(api, corral, servers):
    api.on(DEPLOY, document(instance("one"), 201), problem(422, "deploy_failed"), document(instance("three"), 201))
    results = corral("import", servers, "--json").json["servers"]
    assert [(result["name"], result["outcome"]) for result in results] == [
        ("one", "deployed"),
        ("two", "failed"),
        ("three", "deployed"),
        ("web", "skipped"),
    ]
    assert results[1]["problem"]["code"] == "deploy_failed"


def test_a_dry_run_asks_for_nothing_and_shows_names_of_variables_only(api, corral, servers):
    result = corral("import", servers, "--dry-run")
    assert api.asked == []
    assert result.out.splitlines()[1].split() == ["one", "npx", "one", "KEY"]
    assert "s3cret" not in result.out + result.err
    assert "web: a remote server" in result.err
    assert [request["name"] for request in corral("import", servers, "--dry-run", "--json").json["requests"]] == [
        "one",
        "two",
        "three",
    ]


def test_a_server_that_the_file_does_not_name_is_wrong_usage(api, corral, servers):
    result = corral("import", servers, "four")
    assert result.code == 2
    assert "there is no server 'four'" in result.err


def test_a_file_without_servers_is_wrong_usage(api, corral):
    assert corral("import", "-", stdin=b"{}").code == 2
    assert corral("import", "-", stdin=b'{"mcpServers": {}}').code == 2

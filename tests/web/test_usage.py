"""What an owner uses, and what bounds it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from controlplane.model import Role, Sample, UsageDay
from tests.web.fakes import NOW, TOKENS
from tests.web.fakes_api import Api, problem_of, serving

if TYPE_CHECKING:
    import httpx


def run_up(api: Api) -> None:
    """Alice's server has used something and was called, and so has bob's."""
    for owner, memory_mb in (("alice", 64.5), ("bob", 32.0)):
        runner = api.named(owner, "memory")
        runner.last_sample = Sample(at=NOW, cpu_percent=12.5, memory_mb=memory_mb, processes=3)
        runner.meter.count(0.1, failed=False)
        runner.meter.count(0.1, failed=True)


def quotas_of(answer: httpx.Response) -> dict[str, dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return {row.pop("name"): row for row in answer.json()["quotas"]}


async def test_an_owner_sees_what_is_used_of_each_quota() -> None:
    async with serving(max_instances_per_user=7, rate_limit_rps=50, max_memory_mb=512) as api:
        run_up(api)
        answer = await api.ask("GET", "/usage")
        quotas = quotas_of(answer)

        assert quotas["instances"] == {"used": 2, "limit": 7, "unit": "instances", "scope": "owner"}
        assert quotas["tokens"] == {"used": len(TOKENS) - 1, "limit": 100, "unit": "tokens", "scope": "owner"}
        assert quotas["builds"] == {"used": 1, "limit": 2, "unit": "builds", "scope": "owner"}
        assert quotas["memory"] == {"used": 64.5, "limit": None, "unit": "MiB", "scope": "owner"}
        assert quotas["call_rate"] == {"used": None, "limit": 50, "unit": "calls/s", "scope": "token"}
        assert quotas["instance_memory"] == {"used": None, "limit": 512, "unit": "MiB", "scope": "instance"}
        assert "store" not in quotas
        document = answer.json()
        assert (document["owner"], document["role"], document["owners"]) == ("alice", "deployer", [])
        assert document["total"] == {
            "name": "alice",
            "instances": 2,
            "running": 1,
            "memory_mb": 64.5,
            "cpu_percent": 12.5,
            "processes": 3,
            "calls": 2,
            "errors": 1,
        }


async def test_what_a_day_can_use_up_is_shown_with_what_holds_for_the_owner() -> None:
    async with serving(max_calls_per_day=100, max_mb_per_day=8, max_memory_mb_per_user=4096) as api:
        account = api.services.accounts.of("alice")
        account.calls, account.bytes_in, account.bytes_out, account.cpu_s = 3, 2**20, 2**19, 1.26
        api.services.accounts.of("bob").calls = 77
        quotas = quotas_of(await api.ask("GET", "/usage"))
        assert quotas["calls_per_day"] == {"used": 3, "limit": 100, "unit": "calls", "scope": "owner"}
        assert quotas["mb_per_day"] == {"used": 1.5, "limit": 8, "unit": "MiB", "scope": "owner"}
        assert quotas["cpu_s_per_day"] == {"used": 1.3, "limit": None, "unit": "s", "scope": "owner"}
        # One of hers is to run, with the limits that a spec has by itself.
        assert quotas["memory_mb"] == {"used": 1024, "limit": 4096, "unit": "MiB", "scope": "owner"}

        said = {"calls_per_day": 0, "instances": 3, "instance_memory_mb": 64}
        assert (await api.admin("PATCH", "/users/alice", json={"quotas": said})).json()["quotas"] == said
        quotas = quotas_of(await api.ask("GET", "/usage"))
        limits = {
            name: quotas[name]["limit"] for name in ("calls_per_day", "instances", "instance_memory", "mb_per_day")
        }
        assert limits == {"calls_per_day": None, "instances": 3, "instance_memory": 64, "mb_per_day": 8}
        assert quotas_of(await api.admin("GET", "/usage?owner=bob"))["instances"]["limit"] == 10


async def test_days_are_listed_when_they_are_asked_for_newest_first_and_one_owners_only() -> None:
    async with serving() as api:
        accounts = api.services.accounts
        today = accounts.date
        accounts.of("alice").calls = 5
        days = (0, 1, 3, 6, 7)
        api.store.usage = [
            UsageDay(owner=owner, day=today - timedelta(days=ago), calls=ago + 1, cpu_s=0.1234)
            for ago in days
            for owner in ("alice", "bob")
        ]
        assert (await api.ask("GET", "/usage")).json()["days"] == []
        listed = (await api.ask("GET", "/usage?days=7")).json()["days"]
        # Of today it is known here, what the database has may be older.
        assert [(row["day"], row["calls"]) for row in listed] == [
            ((today - timedelta(days=ago)).isoformat(), calls) for ago, calls in ((0, 5), (1, 2), (3, 4), (6, 7))
        ]
        assert listed[1]["cpu_s"] == 0.123
        of_bob = (await api.admin("GET", "/usage?owner=bob&days=2")).json()["days"]
        assert [row["calls"] for row in of_bob] == [2]
        problem_of(await api.ask("GET", "/usage?days=401"), 422, "invalid_request")
        api.store.away = True
        problem_of(await api.ask("GET", "/usage?days=7"), 503, "storage_unavailable")
        assert (await api.ask("GET", "/usage")).status_code == 200


async def test_what_is_not_bounded_has_no_limit() -> None:
    async with serving(rate_limit_rps=0) as api:
        assert quotas_of(await api.ask("GET", "/usage"))["call_rate"]["limit"] is None


async def test_the_role_is_the_tokens_own() -> None:
    async with serving() as api:
        answer = await api.ask("GET", "/usage", token=TOKENS[Role.VIEWER])
        assert answer.json()["role"] == "viewer"


async def test_an_administrator_sees_everybodys_sums_and_the_store() -> None:
    async with serving() as api:
        run_up(api)
        answer = await api.admin("GET", "/usage")
        document = answer.json()
        assert (document["owner"], document["total"]["instances"]) == ("root", 0)
        assert [(row["name"], row["instances"], row["memory_mb"]) for row in document["owners"]] == [
            ("alice", 2, 64.5),
            ("bob", 1, 32.0),
        ]
        store = quotas_of(answer)["store"]
        assert (store["used"], store["limit"], store["scope"]) == (0, 1024, "service")


async def test_an_administrator_asks_for_one_user() -> None:
    async with serving() as api:
        run_up(api)
        document = (await api.admin("GET", "/usage?owner=bob")).json()
        assert (document["owner"], document["role"], document["owners"]) == ("bob", "deployer", [])
        assert (document["total"]["instances"], document["total"]["memory_mb"]) == (1, 32.0)
        problem_of(await api.admin("GET", "/usage?owner=nobody"), 404, "not_found")
        problem_of(await api.ask("GET", "/usage?owner=bob"), 403, "forbidden")

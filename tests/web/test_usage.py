"""What an owner uses, and what bounds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controlplane.model import Role, Sample
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

"""The audit log of a real control plane: what people do, through a hard end of the database and of Corral itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.e2e.plane import wait_until
from tests.services import own_postgres

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.plane import Plane
    from tests.services import Postgres

__all__ = ["own_postgres"]

WRITTEN_S = 30
VALUE = "correct horse battery staple"


def audit(plane: Plane, token: str | None = None, **params: Any) -> list[dict[str, Any]]:
    with plane.client(token) as client:
        answer = client.get("/audit", params=params)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["audit"])


def said(rows: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    return [(row["actor"], row["action"], row["status"]) for row in rows]


def test_who_did_what_is_told_to_whom_it_concerns_and_no_value_is_in_it(plane: Plane) -> None:
    made = plane.request("POST", "/users", json={"name": "grace", "role": "deployer"}).json()
    with plane.client(made["token"]) as grace:
        deployed = grace.post(
            "/deploy?wait=0",
            json={"name": "mine", "source_type": "mcp_config", "mcp_config": {"command": "sleep", "args": ["9"]}},
        )
        instance_id = deployed.json()["instance_id"]
        assert grace.put("/secrets/API_KEY", json={"value": VALUE}).status_code == 201
        assert grace.delete("/instances/mine").status_code == 200
        assert grace.post("/users", json={"name": "eve"}).status_code == 403
    assert plane.request("PATCH", "/users/grace", json={"disabled": False}).status_code == 200
    with plane.client("corral_not-a-token-of-anybody") as nobody:
        assert nobody.get("/instances").status_code == 401

    everything = audit(plane)
    assert said(everything) == [
        (None, "signIn", 401),
        ("admin", "patchUser", 200),
        ("grace", "addUser", 403),
        ("grace", "removeInstance", 200),
        ("grace", "setSecret", 201),
        ("grace", "deployShort", deployed.status_code),
        ("admin", "addUser", 201),
    ]
    assert {row["address"] for row in everything} == {"127.0.0.1"}
    assert [row["target"] for row in audit(plane, target=instance_id)] == [instance_id] * 2
    assert {row["name"] for row in audit(plane, target=instance_id)} == {"mine"}, "though it is removed"

    hers = audit(plane, made["token"])
    assert said(hers) == [row for row in said(everything) if row[1] != "signIn"]
    eve = plane.request("POST", "/users", json={"name": "eve", "role": "viewer"}).json()
    assert said(audit(plane, eve["token"])) == [("admin", "addUser", 201)], "her own beginning, and nothing of others"

    shown = plane.corral("audit", "--actor", "grace", "--action", "removeInstance")
    assert shown.returncode == 0, shown.stderr
    assert " removeInstance " in shown.stdout
    assert f"grace from 127.0.0.1: removeInstance {instance_id}: 200" in plane.log
    assert VALUE not in str(everything) + plane.log


def test_what_was_done_while_the_database_was_away_is_there_when_it_is_back(
    planes: Callable[..., Plane], own_postgres: Postgres
) -> None:
    plane = planes(DATABASE_URL=own_postgres.url("postgres"))
    own_postgres.kill()
    refused = plane.request("POST", "/users", json={"name": "grace", "role": "viewer"})
    assert refused.status_code == 503
    own_postgres.start()

    def is_written() -> bool:
        with plane.client() as client:
            answer = client.get("/audit")
        return answer.status_code == 200 and said(answer.json()["audit"]) == [("admin", "addUser", 503)]

    wait_until(is_written, WRITTEN_S, "the row of the refused request")


def test_a_row_outlives_the_control_plane_that_is_killed_after_a_moment(planes: Callable[..., Plane]) -> None:
    plane = planes()
    plane.request("POST", "/users", json={"name": "grace", "role": "viewer"})
    rows = audit(plane)
    plane.kill()
    plane.start()
    assert audit(plane) == rows
    assert said(rows) == [("admin", "addUser", 201)]

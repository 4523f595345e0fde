"""Redeploy, rollback and the list of revisions."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from attrs import evolve

from controlplane.core.lifecycle import State
from controlplane.errors import Conflict, NotFound
from controlplane.model import Command, Evidence, Origin, Resolved, Revision, Role, SourceType, Spec
from controlplane.supervise.succession import Succession
from controlplane.web.source_line import MAX_CHARS, source_line
from tests.web.fakes import NOW, TOKENS
from tests.web.fakes_api import FAILURE, SECRET, Api, ApiRunner, make_spec, pointers, problem_of, serving


async def finish(api: Api, runner: ApiRunner, failure: Evidence | None = None, state: State = State.RUNNING) -> None:
    """Let the new revision come to its end, once it is there."""
    with trio.fail_after(10):
        while runner.succession is None:
            await trio.sleep(0.01)
    succession = runner.succession
    succession.failure = failure
    if failure is None:
        runner.instance = evolve(runner.instance, spec=succession.spec)
        runner.become(state, last_error=FAILURE if state is State.FAILED else None)
    succession.done.set()


async def revised(
    api: Api, path: str, body: dict[str, Any] | None, failure: Evidence | None = None, state: State = State.RUNNING
) -> Any:
    runner = api.named("alice", "memory")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(finish, api, runner, failure, state)
        more = {} if body is None else {"json": body}
        response = await api.ask("POST", f"/instances/memory/{path}?wait=300", **more)
        nursery.cancel_scope.cancel()
    return response


@pytest.mark.parametrize(
    ("path", "body", "wanted"),
    [
        ("redeploy", {"source_ref": "v2"}, "v2"),
        ("redeploy", {}, None),
        ("redeploy", None, None),
        ("rollback", {"revision": 3}, 3),
        ("rollback", {"revision": None}, None),
        ("rollback", {}, None),
        ("rollback", None, None),
    ],
)
async def test_a_revision_that_takes_over_is_a_200(path: str, body: dict[str, Any] | None, wanted: Any) -> None:
    async with serving() as api:
        response = await revised(api, path, body)
        assert response.status_code == 200, response.text
        made = response.json()
        assert (made["revision"], made["status"], made["candidate"]) == (2, "running", None)
        ((runner, seen),) = api.deployer.revised
        assert runner.instance.name == "memory"
        assert (seen if path == "rollback" else seen.source_ref) == wanted


async def test_one_that_is_still_on_its_way_is_a_202_with_what_runs_and_what_comes() -> None:
    async with serving() as api:
        response = await api.ask("POST", "/instances/memory/redeploy?wait=0.05", json={})
        assert response.status_code == 202
        made = response.json()
        assert (made["revision"], made["status"]) == (1, "running")
        assert made["candidate"] == {"revision": 2, "phase": "pending"}
        assert (await api.ask("GET", "/instances/memory")).json()["candidate"] == made["candidate"]


@pytest.mark.parametrize("code", ["build_failed", "source_rejected", "archive_rejected", "exited"])
async def test_one_that_fails_is_a_422_with_its_evidence_and_what_ran_stays(code: str) -> None:
    async with serving() as api:
        response = await revised(api, "redeploy", {}, evolve(FAILURE, code=code))
        document = problem_of(response, 422, code if code != "exited" else "deploy_failed")
        assert document["detail"].startswith("Revision 2 of memory failed, and revision 1 stays: ")
        assert (document["revision"], document["instance_status"], document["exit_code"]) == (2, "running", 3)
        assert document["stderr_tail"]
        assert api.named("alice", "memory").state is State.RUNNING


async def test_where_nothing_served_its_failure_is_the_instances_own() -> None:
    async with serving() as api:
        document = problem_of(await revised(api, "redeploy", {}, state=State.FAILED), 422, "deploy_failed")
        assert document["detail"].startswith("The instance memory failed: ")


@pytest.mark.parametrize("code", ["build_failed", "source_rejected", "archive_rejected"])
async def test_a_deploy_whose_source_or_build_failed_says_so_by_its_code(code: str) -> None:
    async with serving() as api:
        api.supervisor.outcome, api.supervisor.failure = State.FAILED, evolve(FAILURE, code=code)
        document = problem_of(await api.ask("POST", "/instances/files/start"), 422, code)
        assert document["exit_code"] == 3


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("redeploy", {"name": "other"}, {"/name"}),
        ("redeploy", {"source_type": "docker"}, {"/source_type"}),
        ("redeploy", {"dependencies": ["a"] * 5000}, {"/dependencies"}),
        ("redeploy", {"environment_vars": {"A=B": "1"}, "limits": {"memory_mb": 1}}, {"/environment_vars/A=B", "/limits/memory_mb"}),
        ("redeploy", {"source_ref": "a\0b"}, {"/source_ref"}),
        ("rollback", {"revision": 0}, {"/revision"}),
        ("rollback", {"revision": "1"}, {"/revision"}),
        ("rollback", {"revison": 1}, {"/revison"}),
    ],
)  # fmt: skip
async def test_a_wrong_body_is_refused_where_it_is_wrong(path: str, body: dict[str, Any], expected: set[str]) -> None:
    async with serving() as api:
        response = await api.ask("POST", f"/instances/memory/{path}", json=body)
        assert pointers(problem_of(response, 422, "invalid_request")) == expected
        assert not api.deployer.revised


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(Conflict("revision 2 is on its way"), 409, "conflict"), (NotFound("9"), 404, "not_found")],
)
async def test_what_the_deployer_refuses_is_told_as_it_says(error: Exception, status: int, code: str) -> None:
    async with serving() as api:
        api.deployer.error = error
        for path in ("redeploy", "rollback"):
            problem_of(await api.ask("POST", f"/instances/memory/{path}", json={}), status, code)


@pytest.mark.parametrize("path", ["redeploy", "rollback"])
async def test_revising_needs_the_role_and_the_instance(path: str) -> None:
    async with serving() as api:
        caller = await api.ask("POST", f"/instances/memory/{path}", token=TOKENS[Role.CALLER], json={})
        problem_of(caller, 403, "forbidden")
        problem_of(await api.ask("POST", f"/instances/bob/memory/{path}", json={}), 404, "not_found")
        problem_of(await api.ask("POST", f"/instances/nothing/{path}", json={}), 404, "not_found")


# -- the list


def revision(number: int, **changes: Any) -> Revision:
    members = {name: changes.pop(name) for name in ("ran_at", "failure") if name in changes}
    return Revision(spec=make_spec(revision=number, **changes), created_at=NOW, **members)


async def test_revisions_say_what_became_of_each_and_no_secret() -> None:
    async with serving() as api:
        runner = api.named("alice", "memory")
        runner.instance = evolve(runner.instance, spec=make_spec(revision=5))

        async def nothing(_: Any) -> None:
            pass

        runner.succession = Succession(make_spec(revision=7), nothing, nothing)
        found = Resolved(language="node", facts={"package": "srv@1.2.3"})
        api.store.revisions_ = [
            revision(7, cause="redeploy"),
            revision(6, cause="redeploy", failure=FAILURE),
            revision(5, cause="rollback to 3", ran_at=NOW, resolved=found),
            revision(4, cause="redeploy"),
            revision(3, cause="patch"),
            revision(2, cause="redeploy", ran_at=NOW),
        ]
        response = await api.ask("GET", "/instances/memory/revisions", token=TOKENS[Role.VIEWER])
        assert response.status_code == 200
        document = response.json()
        assert document["next_cursor"] is None
        rows = document["revisions"]
        assert [(row["revision"], row["state"]) for row in rows] == [
            (7, "pending"),
            (6, "failed"),
            (5, "active"),
            (4, "failed"),
            (3, "superseded"),
            (2, "superseded"),
        ]
        assert rows[1]["failure"]["exit_code"] == 3
        assert rows[2]["resolved"] == {"package": "srv@1.2.3"}
        assert rows[2]["cause"] == "rollback to 3"
        assert rows[2]["source"].startswith("npx -y srv")
        assert SECRET not in response.text
        assert "abc" not in rows[2]["source"]


async def test_an_instance_shows_what_its_build_found() -> None:
    async with serving() as api:
        runner = api.named("alice", "memory")
        found = Resolved(language="python", entry_point="main.py", facts={"commit": "c0ffee"})
        spec = Spec(
            revision=3,
            source_type=SourceType.GIT,
            language="",
            origin=Origin(url="https://example.com/x"),
            dependencies=("mcp",),
            build_command=f"make TOKEN={SECRET}",
            env={"TOKEN": SECRET},
            resolved=found,
        )
        runner.instance = evolve(runner.instance, spec=spec)
        shown = (await api.ask("GET", "/instances/memory")).json()
        assert (shown["language"], shown["entry_point"], shown["resolved"]) == (
            "python",
            "main.py",
            {"commit": "c0ffee"},
        )
        assert (shown["revision"], shown["dependencies"]) == (3, ["mcp"])
        assert shown["build_command"].startswith("make TOKEN=")
        assert SECRET not in str(shown)
        listed = (await api.ask("GET", "/instances?language=python")).json()["instances"]
        assert {row["name"] for row in listed} == {"memory", "files"}


def spec_of(**members: Any) -> Spec:
    return Spec(**{"source_type": SourceType.GIT, "language": "", **members})


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        (spec_of(command=Command(command="npx", args=("-y", "a b"))), "npx -y 'a b'"),
        (spec_of(command=Command(command="x", args=("--token", "hush"))), "x --token '[redacted]'"),
        (spec_of(origin=Origin(url="https://h/r.git", ref="v1", subdir="a/b")), "https://h/r.git#v1 in a/b"),
        (spec_of(origin=Origin(url="https://h/a.zip?sig=hush")), "https://h/a.zip"),
        (spec_of(origin=Origin(url="ssh://git@h/r")), "ssh://h/r"),
        (spec_of(origin=Origin(sha256="ab" * 32, size_bytes=1_234_567)), "upload abababababab, 1.2 MB"),
        (spec_of(origin=Origin(sha256="ab" * 32, size_bytes=99, subdir="x")), "upload abababababab, 99 bytes in x"),
        (spec_of(entry_point="server.py", source=b"x"), "server.py"),
    ],
)
def test_a_source_is_told_in_one_line_without_secrets(spec: Spec, line: str) -> None:
    assert source_line(spec) == line


def test_a_long_source_is_cut_and_stays_one_line() -> None:
    line = source_line(spec_of(command=Command(command="x", args=("a\nb", "y" * 500))))

    assert len(line) == MAX_CHARS
    assert "\n" not in line

"""What the strict converter takes, what it refuses, and what it says about it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.errors import InvalidRequest
from controlplane.wire.answers import InstancesOut, TokenIn, TokenOut, UserIn, UserPatchIn
from controlplane.wire.convert import structure, unstructure
from controlplane.wire.deploy import DeployIn, ExecuteIn, McpConfigIn, PatchIn
from controlplane.wire.wrong import MAX_ERRORS
from tests.wire.cases import INVALID_DEPLOYS, config, deploy


def refused(value: Any, cls: type = DeployIn) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        structure(value, cls)
    return {error.pointer: error.message for error in caught.value.errors}


def test_the_founding_readmes_deploys_are_taken_as_written() -> None:
    spec = structure(deploy(environment_vars={"MEMORY_SIZE": "1GB"}), DeployIn)
    assert spec.mcp_config == McpConfigIn(command="npx", args=["-y", "@modelcontextprotocol/server-memory"])
    assert spec.environment_vars == {"MEMORY_SIZE": "1GB"}
    assert spec.limits.memory_mb is None

    upload = {
        "name": "my-mcp-server",
        "source_type": "git",
        "source_url": "https://github.com/user/mcp-server.git",
        "language": "python",
        "entry_point": "server.py",
        "dependencies": ["requests", "aiofiles"],
        "environment_vars": {"API_KEY": "secret"},
    }
    assert structure(upload, DeployIn).dependencies == ["requests", "aiofiles"]


@pytest.mark.parametrize(("value", "pointer", "message"), INVALID_DEPLOYS)
def test_an_invalid_deploy_is_refused_at_its_place(value: Any, pointer: str, message: str) -> None:
    errors = refused(value)
    assert pointer in errors
    assert message in errors[pointer]


def test_all_wrong_places_are_reported_at_once() -> None:
    errors = refused(
        deploy(
            name=1,
            mcp_config={"comand": "npx", "args": ["a", 1, "b\0"], "env": {"A": 1, "B-": "x"}},
            limits={"memory_mb": 1.5, "cpu_percent": True},
            sesions="shared",
        )
    )
    assert set(errors) == {
        "/name",
        "/mcp_config/command",
        "/mcp_config/comand",
        "/mcp_config/args/1",
        "/mcp_config/args/2",
        "/mcp_config/env/A",
        "/mcp_config/env/B-",
        "/limits/memory_mb",
        "/limits/cpu_percent",
        "/sesions",
    }


def test_the_detail_names_the_first_wrong_place_and_how_many_there_are() -> None:
    with pytest.raises(InvalidRequest) as caught:
        structure(deploy(name=1, labels=[]), DeployIn)
    assert caught.value.detail == "2 places are wrong; the first is /name: expected a string, got a number"
    with pytest.raises(InvalidRequest) as caught:
        structure(deploy(name=1), DeployIn)
    assert caught.value.detail == "/name: expected a string, got a number"


def test_a_hostile_body_gets_a_bounded_answer() -> None:
    unknown = {f"{i}{'x' * 1000}": 1 for i in range(5000)}
    errors = refused(deploy(**unknown))
    assert len(errors) <= MAX_ERRORS
    assert all(len(pointer) < 100 and len(message) < 200 for pointer, message in errors.items())


def test_python_values_that_only_look_like_json_types_are_refused() -> None:
    class Text(str):
        __slots__ = ()

    assert "/name" in refused(deploy(name=Text("a")))
    assert "/mcp_config/args" in refused(config(args=("a",)))


def test_null_is_taken_only_where_absence_is() -> None:
    assert structure(deploy(source_url=None, language=None), DeployIn).language is None
    assert refused(deploy(labels=None)) == {"/labels": "expected an object, got null"}
    assert structure({"limits": None}, PatchIn) == PatchIn()


def test_params_pass_through_whatever_they_hold() -> None:
    params: dict[str, Any] = {"a": [1, 1e308, -0.0, 2**63, None, {"__proto__": "\0"}]}
    assert structure({"method": "tools/call", "params": params}, ExecuteIn).params == params
    assert structure({"method": "x", "params": None}, ExecuteIn).params is None


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/method"),
        ({"method": ""}, "/method"),
        ({"method": "a\nb"}, "/method"),
        ({"method": "a\x7f"}, "/method"),
        ({"method": "x" * 257}, "/method"),
        ({"method": "x", "params": 1}, "/params"),
        ({"method": "x", "params": "y"}, "/params"),
        ({"method": "x", "params": [1]}, "/params"),
        ({"method": "x", "params": True}, "/params"),
        ({"method": "x", "timeout_s": "1"}, "/timeout_s"),
        ({"method": "x", "timeout_s": -1}, "/timeout_s"),
        ({"method": "x", "id": 1}, "/id"),
    ],
)
def test_an_invalid_call_is_refused_at_its_place(body: Any, pointer: str) -> None:
    assert pointer in refused(body, ExecuteIn)


@pytest.mark.parametrize(
    ("body", "cls", "pointer"),
    [
        ({"name": "", "role": "viewer"}, TokenIn, "/name"),
        ({"name": "a", "role": "root"}, TokenIn, "/role"),
        ({"name": "a", "role": "viewer", "expires_in": 0}, TokenIn, "/expires_in"),
        ({"name": "a", "role": "viewer", "expires_in": 1e300}, TokenIn, "/expires_in"),
        ({"name": "Bob"}, UserIn, "/name"),
        ({"name": "../bob"}, UserIn, "/name"),
        ({"disabled": 1}, UserPatchIn, "/disabled"),
        ({"name": "x"}, UserPatchIn, "/name"),
    ],
)
def test_an_invalid_token_or_user_is_refused_at_its_place(body: Any, cls: type, pointer: str) -> None:
    assert pointer in refused(body, cls)


def test_answers_become_plain_values_and_a_token_only_appears_when_it_is_new() -> None:
    record = TokenOut(token_id="1", name="ci", owner="a", role="viewer", created_at="2026-11-22T00:00:00Z")
    plain = unstructure(record)
    assert "token" not in plain
    assert plain["expires_at"] is None
    assert unstructure(InstancesOut(instances=[])) == {"instances": [], "next_cursor": None}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
fields = st.sampled_from(["name", "source_type", "mcp_config", "limits", "restart", "network", "mounts", "labels", "x"])


@settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(fields, json_values, max_size=9))
def test_any_json_is_either_taken_or_refused_with_places(body: dict[str, Any]) -> None:
    try:
        structure(body, DeployIn)
    except InvalidRequest as error:
        assert error.errors  # noqa: PT017 -- either way out is right, but never another exception

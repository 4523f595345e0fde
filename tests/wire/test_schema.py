"""The JSON Schemas say what the converter does."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest

from controlplane.wire import schema
from controlplane.wire.answers import InstanceDetailOut, ProblemOut, TokenOut
from controlplane.wire.deploy import DeployIn
from tests.wire.cases import INVALID_DEPLOYS, MEMORY

COMPONENTS = schema.components([DeployIn], [InstanceDetailOut, ProblemOut, TokenOut])


def validator(name: str) -> Any:
    document = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": COMPONENTS}}
    return jsonschema_rs.Draft202012Validator(document)


def test_every_class_that_is_mentioned_is_a_component() -> None:
    assert {"DeployIn", "McpConfigIn", "LimitsIn", "MountIn", "InstanceDetailOut", "EvidenceOut"} <= set(COMPONENTS)


def test_requests_are_closed_and_answers_open() -> None:
    assert COMPONENTS["McpConfigIn"]["additionalProperties"] is False
    assert "additionalProperties" not in COMPONENTS["InstanceDetailOut"]
    assert "next_cursor" not in COMPONENTS["InstanceDetailOut"]["required"]
    assert "pid" in COMPONENTS["InstanceDetailOut"]["required"]
    assert "token" not in COMPONENTS["TokenOut"]["required"]


def test_words_keep_the_order_they_are_written_in() -> None:
    assert COMPONENTS["DeployIn"]["properties"]["source_type"]["enum"] == ["mcp_config", "git", "zip", "tar", "direct"]


def test_keywords_that_only_steer_messages_stay_inside() -> None:
    assert "x_expects" not in str(COMPONENTS)


def test_the_readmes_deploy_is_valid_by_the_schema_too() -> None:
    assert validator("DeployIn").is_valid(MEMORY)


NOT_IN_JSON_SCHEMA = ("NUL", "surrogate", "finite", "64.0")
"""Refused by the converter beyond what a JSON Schema can say."""


@pytest.mark.parametrize(
    ("value", "message"),
    [(value, message) for value, _, message in INVALID_DEPLOYS if not any(w in message for w in NOT_IN_JSON_SCHEMA)],
)
def test_what_the_converter_refuses_the_schema_refuses(value: Any, message: str) -> None:
    assert not validator("DeployIn").is_valid(value)

"""The error tree against the API's closed list."""

from __future__ import annotations

import pickle
import re

import pytest

from controlplane import errors
from controlplane.errors import PROBLEMS, CorralError, FieldError, Internal, NotFound, RateLimited

CLOSED_LIST = {
    "malformed_json": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "origin_rejected": 403,
    "quota_exceeded": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "conflict": 409,
    "not_running": 409,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "host_rejected": 421,
    "invalid_request": 422,
    "source_rejected": 422,
    "archive_rejected": 422,
    "build_failed": 422,
    "deploy_failed": 422,
    "secret_missing": 422,
    "rate_limited": 429,
    "internal": 500,
    "instance_crashed": 502,
    "bad_child_message": 502,
    "instance_unavailable": 503,
    "busy": 503,
    "storage_unavailable": 503,
    "overloaded": 503,
    "shutting_down": 503,
    "call_timeout": 504,
}
"""As the API's document closes it: code and status."""

LEAVES = sorted(PROBLEMS.values(), key=lambda leaf: leaf.code)


def test_the_tree_is_the_closed_list() -> None:
    assert {code: leaf.status for code, leaf in PROBLEMS.items()} == CLOSED_LIST


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.code)
def test_a_leaf_is_named_as_its_code_and_has_a_title_for_people(leaf: type[CorralError]) -> None:
    assert re.sub(r"(?<!^)(?=[A-Z])", "_", leaf.__name__).lower() == leaf.code
    assert leaf.title
    assert leaf.title[0].isupper()
    assert not leaf.title.endswith(".")


def test_every_error_of_the_module_is_a_leaf() -> None:
    found = {item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, CorralError)}

    assert found - {CorralError} == set(LEAVES)


def test_an_error_reads_as_what_happened() -> None:
    assert str(NotFound("there is no such cow")) == "there is no such cow"
    assert str(NotFound()) == "There is no such thing"
    assert NotFound("x").errors == ()
    assert dict(NotFound("x").evidence) == {}


def test_an_error_carries_what_a_person_or_a_client_can_act_on() -> None:
    error = RateLimited("slow down", hint="wait", retry_after_s=1.5, errors=(FieldError("/a", "b"),))

    assert (error.hint, error.retry_after_s, error.errors[0].pointer) == ("wait", 1.5, "/a")


def test_errors_can_be_raised_kept_and_told_apart() -> None:
    one, other = NotFound("x"), NotFound("x")

    assert one != other, "two failures are two, even with the same words"
    assert len({one, other, one}) == 2
    with pytest.raises(ExceptionGroup) as caught:
        raise ExceptionGroup("both", [one, Internal("y")])
    assert caught.value.subgroup(NotFound) is not None


def test_what_an_error_says_survives_being_written_down() -> None:
    assert "there is no such cow" in repr(NotFound("there is no such cow"))
    assert pickle.loads(pickle.dumps(FieldError("/a", "b"))) == FieldError("/a", "b")

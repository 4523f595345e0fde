"""How failures become answers."""

from __future__ import annotations

import json
import logging

import pytest

from controlplane.errors import (
    PROBLEMS,
    Busy,
    CorralError,
    DeployFailed,
    FieldError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RateLimited,
    Unauthorized,
)
from controlplane.web.problems import Answer, answer_for, problem


def document(answer: Answer) -> dict[str, object]:
    value = json.loads(answer.body)
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("code", sorted(PROBLEMS))
def test_every_error_of_the_tree_names_its_page_its_status_and_the_request(code: str) -> None:
    answer = problem(PROBLEMS[code]("It happened."), request_id="r-1")

    headers = dict(answer.headers)
    assert document(answer) == {
        "type": f"/problems/{code}",
        "title": PROBLEMS[code].title,
        "status": answer.status,
        "detail": "It happened.",
        "code": code,
        "request_id": "r-1",
    }
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"content-length"] == str(len(answer.body)).encode()
    assert headers[b"x-request-id"] == b"r-1"
    assert headers[b"cache-control"] == b"no-store"


def test_a_hint_all_wrong_places_and_the_evidence_are_members_of_the_document() -> None:
    error = DeployFailed(
        "It ended.",
        hint="Look at its log.",
        errors=(FieldError("/a", "wrong"), FieldError("/b/0", "missing")),
        evidence={"phase": "start", "exit_code": 3, "stderr_tail": ("boom",)},
    )

    value = document(problem(error, request_id="r"))

    assert value["hint"] == "Look at its log."
    assert value["errors"] == [{"pointer": "/a", "message": "wrong"}, {"pointer": "/b/0", "message": "missing"}]
    assert (value["phase"], value["exit_code"], value["stderr_tail"]) == ("start", 3, ["boom"])


def test_evidence_cannot_replace_what_the_document_says_of_itself() -> None:
    value = document(problem(NotFound("Gone.", evidence={"status": 200, "code": "fine"}), request_id="r"))

    assert (value["status"], value["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("error", "header", "value"),
    [
        (Unauthorized(), b"www-authenticate", b'Bearer realm="corral"'),
        (RateLimited(), b"retry-after", b"1"),
        (RateLimited(retry_after_s=2.1), b"retry-after", b"3"),
        (Busy(retry_after_s=0.01), b"retry-after", b"1"),
        (MethodNotAllowed(evidence={"allow": ["GET", "HEAD"]}), b"allow", b"GET, HEAD"),
    ],
)
def test_statuses_that_need_a_header_have_it(error: CorralError, header: bytes, value: bytes) -> None:
    assert dict(problem(error, request_id="r").headers)[header] == value


def test_a_child_that_printed_half_a_character_does_not_break_the_answer() -> None:
    value = document(problem(NotFound("Gone.", evidence={"stderr_tail": ["\udcff"]}), request_id="r"))

    assert value["stderr_tail"] == ["\udcff"]


def test_a_bug_is_logged_with_its_traceback_and_answered_by_an_incident_only(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "corral.web"):
        try:
            raise RuntimeError("SELECT secret FROM /internal/path")
        except RuntimeError as error:
            answer = answer_for(error, request_id="r")

    value = document(answer)
    assert (answer.status, value["code"]) == (500, "internal")
    assert b"SELECT" not in answer.body
    assert b"RuntimeError" not in answer.body
    [record] = caplog.records
    assert str(value["incident"]) in record.getMessage()
    assert record.exc_info is not None


def test_a_group_around_one_error_counts_as_that_error() -> None:
    group = ExceptionGroup("nursery", [ExceptionGroup("nursery", [InvalidRequest("Wrong.")])])

    assert answer_for(group, request_id="r").status == 422


def test_a_group_of_two_errors_is_a_bug(caplog: pytest.LogCaptureFixture) -> None:
    assert answer_for(ExceptionGroup("both", [NotFound(), InvalidRequest()]), request_id="r").status == 500
    assert len(caplog.records) == 1

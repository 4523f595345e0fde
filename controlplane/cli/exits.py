"""Exit codes, and the failures that end a command: who raises one says what the operator gets to read.

Pure: rendering is `screen.py`'s, deciding what a problem document means is here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from attrs import define, field, frozen


class Exit(IntEnum):
    """The exit codes of every command; `EXIT_MEANING` is their documentation."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    INSTANCE = 5
    TIMEOUT = 6
    NO_CONNECTION = 7
    INTERRUPTED = 130


EXIT_MEANING: Mapping[Exit, str] = {
    Exit.OK: "done",
    Exit.FAILED: "the request failed; the MCP server answered with an error",
    Exit.USAGE: "wrong usage",
    Exit.NOT_FOUND: "not found",
    Exit.NOT_ALLOWED: "not allowed (401, 403)",
    Exit.INSTANCE: "the instance failed or crashed",
    Exit.TIMEOUT: "ran out of time; what was started may go on",
    Exit.NO_CONNECTION: "cannot connect",
    Exit.INTERRUPTED: "interrupted (Ctrl-C)",
}

_BY_CODE: Mapping[str, Exit] = {
    "build_failed": Exit.INSTANCE,
    "secret_missing": Exit.INSTANCE,
    "deploy_failed": Exit.INSTANCE,
    "instance_crashed": Exit.INSTANCE,
    "instance_unavailable": Exit.INSTANCE,
    "bad_child_message": Exit.INSTANCE,
    "call_timeout": Exit.TIMEOUT,
}
_BY_STATUS: Mapping[int, Exit] = {
    401: Exit.NOT_ALLOWED,
    403: Exit.NOT_ALLOWED,
    404: Exit.NOT_FOUND,
    408: Exit.TIMEOUT,
    504: Exit.TIMEOUT,
}


def program() -> str:
    """Return the command's name as the operator typed it; `./corral` says it through the environment."""
    return os.environ.get("CORRAL_PROGRAM") or "corral"


@frozen(kw_only=True)
class Problem:
    """What a problem document (RFC 9457) or an instance's evidence says; absent members are empty."""

    title: str
    detail: str = ""
    status: int | None = None
    code: str = ""
    hint: str = ""
    request_id: str = ""
    retry_after: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    stderr_tail: tuple[str, ...] = ()

    @property
    def exit_code(self) -> Exit:
        return _BY_CODE.get(self.code) or _BY_STATUS.get(self.status or 0, Exit.FAILED)


@define
class CommandFailed(Exception):
    """The command ends here.

    Args:
        problem: What to show on standard error.
        exit_code: The command's exit code.
        document: The API's own JSON, which `--json` prints instead.
    """

    problem: Problem
    exit_code: Exit = Exit.FAILED
    document: bytes | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.problem.detail or self.problem.title


_NAMED_COMMAND = re.compile(r"(?<![\w./-])corral (?=[a-z])")


def _as_typed(hint: object) -> str:
    """Return a hint of the server's with its `corral …` commands under the name that works here."""
    return _NAMED_COMMAND.sub(lambda _: f"{program()} ", str(hint or ""))


def _lines(value: object) -> tuple[str, ...]:
    return tuple(str(line) for line in value) if isinstance(value, list) else ()


def _facts(document: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    seen = [(name.replace("_", " "), document.get(name)) for name in ("phase", "exit_code", "signal")]
    wrong = [
        (str(error.get("pointer") or "/"), error.get("message"))
        for error in document.get("errors") or ()
        if isinstance(error, Mapping)
    ]
    return tuple((name, str(value)) for name, value in (*seen, *wrong) if value is not None)


def problem_of(document: Mapping[str, Any], *, status: int, retry_after: str = "") -> Problem:
    """Read a problem document; a member of another type than expected is shown as text, never refused."""
    return Problem(
        title=str(document.get("title") or f"HTTP {status}"),
        detail=str(document.get("detail") or ""),
        status=status,
        code=str(document.get("code") or ""),
        hint=_as_typed(document.get("hint")),
        request_id=str(document.get("request_id") or ""),
        retry_after=retry_after,
        facts=_facts(document),
        stderr_tail=_lines(document.get("stderr_tail")),
    )


def failed_instance(instance: Mapping[str, Any]) -> Problem:
    """Tell why an instance is `failed`, from its own record."""
    evidence: Mapping[str, Any] = instance.get("last_error") or instance.get("post_mortem") or {}
    return Problem(
        title=f"{instance.get('name', 'the instance')} failed",
        detail=str(evidence.get("reason") or "no reason was kept"),
        code=str(evidence.get("code") or ""),
        hint=_as_typed(evidence.get("hint")) or f"Its last lines: {program()} logs {instance.get('name', '')}",
        facts=_facts(evidence),
        stderr_tail=_lines(evidence.get("stderr_tail")),
    )

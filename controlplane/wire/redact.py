"""Which arguments of a launch are secrets.

Pure. Arguments are judged by position: after `--token`, as `--token=…`, in the
password of a URL, by the well-known shape of a token, or because they hold the
value of an environment variable. A hidden argument keeps its place, so a
reader still sees which one it was.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from controlplane.core.redact import redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

HIDDEN = "[redacted]"
MAX_NAME_CHARS = 128
"""A longer word before `=` is no option's name; the bound keeps matching linear."""

_WORD = (
    r"(?:api[-_]?key|access[-_]?key|private[-_]?key|secret|token|passw(?:or)?d|passphrase|pwd|auth|bearer|credentials?)"
)
_SECRET_NAME = re.compile(rf"(?:--?)?(?:[a-z0-9]+[-_.])*{_WORD}(?:[-_][a-z0-9]+)*", re.IGNORECASE)
_PLAIN_NAME = re.compile(r".*[-_](?:file|path|dir|url|uri|type|name|mode|endpoint|env|id|ttl|limit)", re.IGNORECASE)
"""`--token-file` names a secret's place, `--auth-type` its kind: not the secret."""
# The lookbehinds let a match begin only where a run of such characters begins: one scan of the text in all.
_URL_PASSWORD = re.compile(
    r"(?P<before>(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*://[^\s/:@]*:)(?P<value>[^\s/]+)(?=@)", re.IGNORECASE
)
_URL_QUERY = re.compile(rf"(?P<before>[?&](?:[a-z0-9]+[-_])*{_WORD}=)(?P<value>[^&#\s]+)", re.IGNORECASE)
_BEARER = re.compile(r"(?P<before>\b(?:bearer|basic)\s)(?P<value>[a-z0-9._~+/=-]{8,})", re.IGNORECASE)
_TOKEN_SHAPE = re.compile(
    r"(?<![\w-])(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[\w-]{16,}|xox[abeoprs]-[\w-]{10,}"
    r"|AKIA[A-Z0-9]{12,}|AIza[\w-]{30,}|ya29\.[\w-]{20,}|npm_[A-Za-z0-9]{20,}|pypi-[\w-]{20,}|hf_[A-Za-z0-9]{20,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*|corral_[\w-]{20,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*",
    re.DOTALL,
)


def redact_args(args: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """The arguments as they may be shown.

    Args:
        args: The launch's arguments, in order.
        env: Its environment variables; where an argument holds the value of one, it is hidden.
    """
    hide_values = redactor(env)
    shown: list[str] = []
    follows = False
    for arg in args:
        is_flag = arg.startswith("-") and not arg[1:2].isdigit()
        shown.append(HIDDEN if follows and not is_flag else _redacted(arg, hide_values))
        follows = is_flag and _names_secret(arg)
    return shown


def secret_positions(args: Sequence[str], env: Mapping[str, str]) -> tuple[int, ...]:
    """Positions of arguments that hold a secret: `/proc/*/cmdline` is world-readable, so owners are told."""
    return tuple(i for i, (raw, shown) in enumerate(zip(args, redact_args(args, env), strict=True)) if raw != shown)


def _names_secret(name: str) -> bool:
    return (
        len(name) <= MAX_NAME_CHARS and _SECRET_NAME.fullmatch(name) is not None and _PLAIN_NAME.fullmatch(name) is None
    )


def _redacted(arg: str, hide_values: Callable[[str], str]) -> str:
    name, assigned, value = arg.partition("=")
    if assigned and value and _names_secret(name):
        return f"{name}={HIDDEN}"
    text = hide_values(arg)
    for pattern in (_URL_PASSWORD, _URL_QUERY, _BEARER):
        text = pattern.sub(rf"\g<before>{HIDDEN}", text)
    return _TOKEN_SHAPE.sub(HIDDEN, text)

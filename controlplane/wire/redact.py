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
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# The lookbehinds let a match begin only where a run of such characters begins: one scan of the text in all.
_URL_PASSWORD = re.compile(
    r"(?P<before>(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*://[^\s/:@]*:)(?P<value>[^\s/]+)(?=@)", re.IGNORECASE
)
_URL_QUERY = re.compile(rf"(?P<before>[?&](?:[a-z0-9]+[-_])*{_WORD}=)(?P<value>[^&#\s]+)", re.IGNORECASE)
_BEARER = re.compile(r"(?P<before>\b(?:bearer|basic)\s)(?P<value>[a-z0-9._~+/=-]{8,})", re.IGNORECASE)
_SCHEME = re.compile(r"bearer|basic", re.IGNORECASE)
_BEFORE = rf"\g<before>{HIDDEN}"
_TOKEN_MARKS = (
    *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "sk-", "xox", "AKIA", "AIza", "ya29."),
    *("npm_", "pypi-", "hf_", "eyJ", "corral_", "-----BEGIN "),
)
"""What every token of a known shape begins with; see below."""
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
        follows = is_flag and names_secret(arg)
    return shown


def secret_positions(args: Sequence[str], env: Mapping[str, str]) -> tuple[int, ...]:
    """Positions of arguments that hold a secret: `/proc/*/cmdline` is world-readable, so owners are told."""
    return tuple(i for i, (raw, shown) in enumerate(zip(args, redact_args(args, env), strict=True)) if raw != shown)


def names_secret(name: str) -> bool:
    """Whether what is called so is a secret: an option, a variable, a member of an object; in humps as well."""
    if len(name) > MAX_NAME_CHARS:
        return False
    name = _HUMP.sub("_", name)
    return _SECRET_NAME.fullmatch(name) is not None and _PLAIN_NAME.fullmatch(name) is None


def _redacted(arg: str, hide_values: Callable[[str], str]) -> str:
    name, assigned, value = arg.partition("=")
    if assigned and value and names_secret(name):
        return f"{name}={HIDDEN}"
    return redact_text(arg, hide_values)


def redact_text(text: str, hide_values: Callable[[str], str] = str) -> str:
    """A text as it may be shown.

    Args:
        text: Any; what has the shape of a token, and the password of a URL, is hidden.
        hide_values: Hides the values of the environment variables, where there are any.
    """
    text = hide_values(text)
    # Most texts hold none of these: looking for a word costs a hundredth of what a pattern does.
    if "://" in text and "@" in text:
        text = _URL_PASSWORD.sub(_BEFORE, text)
    if "=" in text and ("?" in text or "&" in text):
        text = _URL_QUERY.sub(_BEFORE, text)
    if _SCHEME.search(text):
        text = _BEARER.sub(_BEFORE, text)
    return _TOKEN_SHAPE.sub(HIDDEN, text) if any(mark in text for mark in _TOKEN_MARKS) else text


def may_hold_secret(text: str) -> bool:
    """Whether any part of a text may have the shape of a secret; False means that `redact_text` hides values alone."""
    return (
        ("://" in text and "@" in text)
        or ("=" in text and ("?" in text or "&" in text))
        or _SCHEME.search(text) is not None
        or any(mark in text for mark in _TOKEN_MARKS)
    )

"""One call as a person would make it elsewhere: with curl, with `corral call`, in Python. Pure.

The token is never in it: its place is taken by the variable that the command line reads. JSON is written in ASCII, so
what a server named so cannot do anything to the terminal that it is pasted into.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pprint import pformat
from typing import Any
from urllib.parse import quote

from attrs import frozen

from tui.inspector.jsontext import compact

VARIABLE = "$CORRAL_TOKEN"
LINE_CHARS = 100


@frozen
class Target:
    """Where a call goes: the control plane, the instance by name, and whether a token is needed."""

    url: str
    instance: str
    has_token: bool = True

    @property
    def execute(self) -> str:
        return f"{self.url}/mcp/{quote(self.instance, safe='')}/execute"


def curl(target: Target, method: str, params: Mapping[str, Any] | None) -> str:
    """A command line of curl."""
    words = ["curl -sS", _word(target.execute)]
    if target.has_token:
        words.append(f'-H "Authorization: Bearer {VARIABLE}"')
    words += ["-H 'Content-Type: application/json'", f"--data {_word(compact(_body(method, params)))}"]
    return " \\\n  ".join(words)


def corral_call(target: Target, method: str, params: Mapping[str, Any] | None) -> str:
    """A command line of `corral call`."""
    words = ["corral call", _word(target.instance)]
    given = params or {}
    if method == "tools/call" and isinstance(given.get("name"), str) and given.keys() <= {"name", "arguments"}:
        words.append(f"--tool={_word(given['name'])}")
        if given.get("arguments"):
            words.append(_word(compact(given["arguments"])))
    else:
        words += ["--", _word(method)] if method.startswith("-") else [_word(method)]
        if given:
            words.append(_word(compact(given)))
    return " ".join(words)


def python(target: Target, method: str, params: Mapping[str, Any] | None) -> str:
    """A script that needs nothing but Python."""
    headers = '"Content-Type": "application/json"'
    if target.has_token:
        headers += ', "Authorization": f"Bearer {os.environ[\'CORRAL_TOKEN\']}"'
    imports = (
        "import json\nimport os\nimport urllib.request" if target.has_token else "import json\nimport urllib.request"
    )
    return f"""{imports}

body = {_literal(_body(method, params))}
request = urllib.request.Request(
    {_literal(target.execute)},
    json.dumps(body).encode(),
    {{{headers}}},
)
with urllib.request.urlopen(request) as response:
    print(json.dumps(json.load(response), indent=2))
"""


def _body(method: str, params: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"method": method} if params is None else {"method": method, "params": params}


def _word(text: str) -> str:
    """Quote for a shell; control characters, which JSON never has raw, as `$'…'` would not be understood by all."""
    return shlex.quote("".join(c if c.isprintable() else "?" for c in text))


def _literal(value: Any) -> str:
    try:
        return (
            ascii(value)
            if len(ascii(value)) < LINE_CHARS
            else _ascii(pformat(value, width=LINE_CHARS, compact=True, sort_dicts=False))
        )
    except RecursionError:
        return f"json.loads({compact(value)!a})"


def _ascii(text: str) -> str:
    """Characters beyond ASCII stand in string literals alone, where an escape means the same."""
    return text.encode("ascii", "backslashreplace").decode()

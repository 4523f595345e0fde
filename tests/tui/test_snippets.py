"""Requests as commands and scripts: they do the same when they are run, and hold no token."""

from __future__ import annotations

import ast
import shlex

import pytest

from tui.inspector.snippets import Target, corral_call, curl, python

HERE = Target("http://127.0.0.1:8000", "my server")
NASTY = {"name": "it's; $(rm) `x`", "arguments": {"q": 'é "\x1b[2J\n\u202e', "deep": [{"a": None, "b": True}] * 30}}


def test_curl_says_the_same_to_a_shell() -> None:
    words = shlex.split(curl(HERE, "tools/call", NASTY).replace("\\\n", ""))
    assert words[:3] == ["curl", "-sS", "http://127.0.0.1:8000/mcp/my%20server/execute"]
    assert words[3:7] == ["-H", "Authorization: Bearer $CORRAL_TOKEN", "-H", "Content-Type: application/json"]
    assert ast.literal_eval(words[-1].replace("null", "None").replace("true", "True")) == {
        "method": "tools/call",
        "params": NASTY,
    }


def test_corral_call_names_the_tool_and_its_arguments() -> None:
    words = shlex.split(corral_call(HERE, "tools/call", {"name": "-x", "arguments": {"a": 1}}))
    assert words == ["corral", "call", "my server", "--tool=-x", '{"a": 1}']
    assert corral_call(Target("", "memory"), "ping", None) == "corral call memory ping"
    assert (
        corral_call(Target("", "m"), "resources/read", {"uri": "a:b"})
        == """corral call m resources/read '{"uri": "a:b"}'"""
    )


def test_a_method_that_looks_like_an_option_is_none_to_corral_call() -> None:
    words = shlex.split(corral_call(HERE, "--help", {"a": 1}))
    assert words == ["corral", "call", "my server", "--", "--help", '{"a": 1}']


@pytest.mark.parametrize("has_token", [True, False])
def test_the_python_script_is_one_and_sends_the_same(has_token: bool) -> None:
    script = python(Target("http://h", "s", has_token=has_token), "tools/call", NASTY)
    tree = ast.parse(script)
    body = next(node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "body")  # type: ignore[attr-defined]
    assert ast.literal_eval(body) == {"method": "tools/call", "params": NASTY}
    assert ("CORRAL_TOKEN" in script) is has_token


def test_every_snippet_is_plain_ascii_on_its_way_into_a_terminal() -> None:
    for text in (curl(HERE, "m\x1b", NASTY), corral_call(HERE, "m\x07", NASTY), python(HERE, "m", NASTY)):
        assert all(character == "\n" or " " <= character <= "~" for character in text)

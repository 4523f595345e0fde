"""`corral secret`: a value goes in by a prompt, standard input or a file, and by nothing that others can read."""

from __future__ import annotations

import json
import sys

import click
import pytest

from controlplane.wire.secrets import VALUE_MAX_BYTES
from tests.cli.fake_api import document

VALUE = "planted-secret-value"
RECORD = {
    "name": "TOKEN",
    "owner": "admin",
    "created_at": "2026-11-22T10:00:00Z",
    "updated_at": "2026-11-23T10:00:00Z",
    "used_by": ["github", "memory"],
}


def sent(api):
    return [json.loads(asked.body) for asked in api.asked if asked.body]


def test_a_value_comes_from_standard_input_and_is_not_shown(api, corral):
    api.on("PUT /secrets/TOKEN", document({**RECORD, "in_force_after_restart": []}, 201))
    result = corral("secret", "set", "TOKEN", stdin=f"{VALUE}\n".encode())
    assert (result.code, result.out, result.err) == (0, "TOKEN is set\n", "")
    assert sent(api) == [{"value": VALUE}]


def test_a_new_value_names_what_has_to_be_restarted(api, corral):
    api.on("PUT /secrets/TOKEN", document({**RECORD, "in_force_after_restart": ["github"]}, 200))
    result = corral("secret", "set", "TOKEN", "--owner", "grace", stdin=b"another value")
    assert result.out == "TOKEN has another value\n"
    assert "corral restart github" in result.err
    assert api.asked[0].query == {"owner": "grace"}


def test_only_one_line_break_at_the_end_of_a_value_is_dropped(api, corral, tmp_path):
    api.on("PUT /secrets/KEY", document(RECORD, 201))
    file = tmp_path / "key.pem"
    for content, value in ((b"line\nline\n\n", "line\nline\n"), (b"dos\r\n", "dos"), (b" spaces ", " spaces ")):
        file.write_bytes(content)
        assert corral("secret", "set", "KEY", "--from-file", str(file)).code == 0
        assert sent(api)[-1] == {"value": value}


def test_on_a_terminal_the_value_is_asked_for_without_an_echo(api, corral, monkeypatch):
    api.on("PUT /secrets/TOKEN", document(RECORD, 201))
    asked = {}

    def prompt(text, **options):
        asked.update(options, text=text)
        return VALUE

    monkeypatch.setattr(click, "prompt", prompt)
    monkeypatch.setattr("controlplane.cli.secrets.sys", Terminal())
    assert corral("secret", "set", "TOKEN").code == 0
    assert asked == {"text": "Value of TOKEN", "hide_input": True, "err": True}
    assert sent(api) == [{"value": VALUE}]


class Terminal:
    """`sys`, with a terminal as standard input."""

    class stdin:  # noqa: N801
        isatty = staticmethod(lambda: True)

    def __getattr__(self, name):
        return getattr(sys, name)


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["secret", "set", f"TOKEN={VALUE}"], b"", "every user of this host can read arguments"),
        (["secret", "set", "TOKEN", VALUE], b"", "run `secret set TOKEN`, which asks for it"),
        (["secret", "set", "TOKEN", "--from-file", "/nowhere"], b"", "/nowhere: No such file or directory"),
        (["secret", "set", "TOKEN"], b"\xff\xfe\xff", "not UTF-8 text"),
        (["secret", "set", "TOKEN"], b"x" * (VALUE_MAX_BYTES + 1), "longer than 64 KiB"),
    ],
)
def test_what_cannot_be_a_value_is_refused_without_showing_it(api, corral, arguments, stdin, message):
    result = corral(*arguments, stdin=stdin)
    assert result.code == 2
    assert message in " ".join(result.err.replace("│", " ").split())
    assert VALUE not in result.out + result.err
    assert api.asked == []


def test_the_list_says_who_uses_what(api, corral):
    lonely = {**RECORD, "name": "LONELY", "used_by": []}
    api.on("GET /secrets", document({"secrets": [RECORD, lonely], "next_cursor": None}))
    result = corral("secret", "ls")
    rows = [line.split() for line in result.out.splitlines()]
    assert rows[0][:3] == ["NAME", "USED", "BY"]
    assert rows[1][:3] == ["TOKEN", "github,", "memory"]
    assert rows[2][:2] == ["LONELY", "nobody"]


def test_secrets_are_removed_and_what_is_used_only_by_force(api, corral):
    refused = {"status": 409, "code": "conflict", "title": "The request conflicts", "detail": "github would not start"}
    api.on("DELETE /secrets/TOKEN", document(refused, 409))
    result = corral("secret", "rm", "TOKEN")
    assert result.code == 1
    assert "github would not start" in result.err
    api.on("DELETE /secrets/TOKEN", document(RECORD))
    assert corral("secret", "rm", "TOKEN", "--force").out == "TOKEN is removed\n"
    assert api.asked[-1].query == {"force": "true"}


def test_replacing_the_key_says_which_replaced_which(api, corral):
    api.on("POST /secrets/rotate-key", document({"key_id": "0b", "previous_key_id": "0a", "boxes": 7}))
    result = corral("secret", "rotate-key")
    assert result.out == "key 0b replaces 0a\n"
    assert "7 values" in result.err


def test_replacing_the_key_names_control_planes_that_still_have_the_old_one(api, corral):
    done = {"key_id": "0b", "previous_key_id": "0a", "boxes": 7, "away": ["http://10.0.0.2:8000"]}
    api.on("POST /secrets/rotate-key", document(done))
    result = corral("secret", "rotate-key")
    assert "http://10.0.0.2:8000 is away and knows the old key: stop it" in result.err


@pytest.mark.parametrize("arguments", [["ls"], ["set", "TOKEN"], ["rm", "TOKEN"], ["rotate-key"]])
def test_json_is_what_the_api_gave(api, corral, arguments):
    answer = {"secrets": [RECORD], "next_cursor": None} if arguments == ["ls"] else RECORD
    for line in ("GET /secrets", "PUT /secrets/TOKEN", "DELETE /secrets/TOKEN", "POST /secrets/rotate-key"):
        api.on(line, document(answer))
    result = corral("secret", *arguments, "--json", stdin=b"value")
    assert result.json == answer


def test_names_complete(api, corral, monkeypatch):
    api.on("GET /secrets", document({"secrets": [RECORD, {**RECORD, "name": "OTHER"}], "next_cursor": None}))
    monkeypatch.setenv("_CORRAL_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "corral secret rm TO")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert "TOKEN" in corral().out

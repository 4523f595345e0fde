"""What people who watch a message pass may see of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.redact import redactor
from controlplane.wire.redact import HIDDEN
from controlplane.wire.redact_frame import FRAME_MAX_CHARS, TOKEN_MAX_CHARS, _names_secret, redact_frame, shown_frame

SECRET = 's3cr3t/"é+\\key\U0001f600='
ENV = {"KEY": SECRET}
HIDE = redactor(ENV)
TOKEN = "ghp_" + "a1" * 18


def shown(value: Any) -> Any:
    """A message made of a value, as it is shown."""
    text, is_cut = shown_frame(json.dumps(value).encode(), HIDE, is_message=True)
    assert not is_cut
    return json.loads(text)


def in_every_escape(text: str) -> str:
    """JSON text that escapes whatever can be escaped."""
    units = text.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02X}{units[i + 1]:02X}" for i in range(0, len(units), 2))


@pytest.mark.parametrize(
    "written",
    [
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        json.dumps(SECRET).replace("/", "\\/"),
        f'"{in_every_escape(SECRET)}"',
        f'"{in_every_escape(SECRET).lower()}"',
        json.dumps(json.dumps({"text": SECRET})),
        json.dumps(json.dumps([json.dumps({"text": SECRET})])),
    ],
)
def test_a_value_of_the_environment_is_found_however_it_is_escaped(written: str) -> None:
    text = redact_frame(f'{{"result":{{"a":1e400,"text":{written}}}}}', HIDE, is_message=True)

    assert "[redacted:KEY]" in text
    assert text.startswith('{"result":{"a":1e400,"text":"')
    json.loads(text)
    assert "cr3t" not in text


@pytest.mark.parametrize("around", ["{}", "first\n{}", "\t{} ", 'he said "{}"', '{{"a":"\\n{}"}}', "{{'a': '{}'}}"])
@pytest.mark.parametrize(
    ("said", "told"),
    [
        (TOKEN, HIDDEN),
        (f"Bearer {'x1' * 8}", f"Bearer {HIDDEN}"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", HIDDEN),
        ("https://u:pa55word@host/", f"https://u:{HIDDEN}@host/"),
        ("postgres://h/x?password=pa55", f"postgres://h/x?password={HIDDEN}"),
    ],
)
def test_what_has_the_shape_of_a_token_is_hidden_wherever_it_stands(around: str, said: str, told: str) -> None:
    found = shown({"params": {"arguments": {"text": around.format(said)}}})["params"]["arguments"]["text"]

    assert said not in found
    assert HIDDEN in found
    if around in ("{}", "first\n{}"):
        assert found == around.format(told)


def test_what_is_called_a_secret_is_hidden_and_the_rest_is_left() -> None:
    arguments = {"apiKey": "ab", "clientSecret": "x", "user_password": "y", "token": "z", "tokenFile": "/t", "n": 12}
    text = json.dumps({"token": "inner", "name": "b"})
    found = shown({"params": {"arguments": arguments, "_meta": {"progressToken": "p1"}, "text": text}})["params"]

    hidden = {"apiKey", "clientSecret", "user_password", "token"}
    assert found["arguments"] == {key: HIDDEN if key in hidden else value for key, value in arguments.items()}
    assert found["_meta"] == {"progressToken": "p1"}
    assert json.loads(found["text"]) == {"token": HIDDEN, "name": "b"}


def test_a_schema_that_has_a_member_of_that_name_stays_readable() -> None:
    schema = {"properties": {"token": {"type": "string", "description": "of the API"}}, "required": ["token"]}

    assert shown(schema) == schema


@pytest.mark.parametrize(
    "frame",
    [
        b'{"jsonrpc": "2.0",  "id":12345678901234567890123, "result":{"n":1.10,"s":"a\\/b \\u00e9","s":1E+2}}',
        b'{"id":1,"result":{"text":"\\ud83d half a pair"}}',
        b"[]",
    ],
)
def test_a_message_without_secrets_is_shown_as_it_was_written(frame: bytes) -> None:
    assert shown_frame(frame, HIDE, is_message=True) == (frame.decode(), False)


def test_noise_is_judged_as_text_too_and_may_be_any_bytes() -> None:
    noise = b'\xff\x00"unbalanced \\' + TOKEN.encode() + b" " + SECRET.encode() + b' "'

    text, is_cut = shown_frame(noise, HIDE, is_message=False)

    assert text == f'\\xff\x00"unbalanced \\\\{HIDDEN} [redacted:KEY] "'
    assert not is_cut


@pytest.mark.parametrize("before", range(FRAME_MAX_CHARS - 120, FRAME_MAX_CHARS + 60, 7))
@pytest.mark.parametrize("secret", [json.dumps(SECRET)[1:-1], in_every_escape(SECRET), TOKEN])
def test_a_secret_at_the_cut_leaves_no_start_of_itself(before: int, secret: str) -> None:
    raw = b'{"x":"' + b"." * before + secret.encode() + b"." * 2 * TOKEN_MAX_CHARS + b'"}'

    text, is_cut = shown_frame(raw, HIDE, is_message=True)

    assert is_cut
    assert FRAME_MAX_CHARS - 250 < len(text) <= FRAME_MAX_CHARS
    rest = text[6:].replace("[redacted:KEY]", "").replace(HIDDEN, "").strip(".")
    assert "[redacted:KEY]".startswith(rest) or HIDDEN.startswith(rest)


def test_names_as_long_as_messages_are_not_kept() -> None:
    before = _names_secret.cache_info().currsize
    shown_frame(b'{"' + b"a" * 10_000 + b'": "x"}', redactor({}), is_message=True)
    assert _names_secret.cache_info().currsize == before


@pytest.mark.parametrize("end", range(8))
def test_a_string_that_is_cut_in_an_escape_is_still_read(end: int) -> None:
    said = "x\\n" + TOKEN + "\\n" + "." * (FRAME_MAX_CHARS + TOKEN_MAX_CHARS - len(TOKEN) - 11 - end)

    text, is_cut = shown_frame(b'{"x":"' + said.encode() + b"\\u00e9" * 99, HIDE, is_message=False)

    assert is_cut
    assert text.startswith(f'{{"x":"x\\n{HIDDEN}\\n...')


def test_escapes_of_other_languages_do_not_keep_a_token_from_being_seen() -> None:
    text = redact_frame(f'log "\\x41 \\u12 \\n{TOKEN}"', HIDE, is_message=False)

    assert TOKEN not in text


@pytest.mark.parametrize("hidden", [1, 100, 5_000])
def test_text_that_shrinks_does_not_draw_a_half_secret_in_from_behind(hidden: int) -> None:
    room = FRAME_MAX_CHARS + TOKEN_MAX_CHARS
    many = ("&token=" + "x" * 9 + " ") * hidden
    raw = (many + "." * (room - len(many) - len(SECRET) // 2) + SECRET).ljust(3 * room, ".").encode()

    text, is_cut = shown_frame(raw, HIDE, is_message=False)

    assert is_cut
    assert SECRET[:3] not in text


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_can_be_shown(raw: bytes, is_message: bool) -> None:
    text, _ = shown_frame(raw, HIDE, is_message=is_message)

    text.encode()


@given(st.lists(st.sampled_from(['"', "\\", "a", ":", "{", SECRET, "\\u0022", TOKEN, "?token=", "\n", "://", "@"])))
def test_no_arrangement_of_quotes_lets_a_secret_through(parts: list[str]) -> None:
    text, _ = shown_frame("".join(parts).encode(), HIDE, is_message=False)

    assert SECRET not in text


@pytest.mark.parametrize(
    "unit", ['"', "\\", '\\"', '":"', "://a", "a@", "?token=", "eyJaaaaaaaaa.", "-----BEGIN ", "ghp_", "{"]
)
def test_hostile_text_takes_one_scan(unit: str) -> None:
    """A hang guard: what takes the square of its length never ends here."""
    shown_frame((unit * 400_000).encode(), HIDE, is_message=False)
    shown_frame((unit * 400_000).encode(), HIDE, is_message=True)

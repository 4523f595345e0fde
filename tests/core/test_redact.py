"""Secret values are replaced wherever they show."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.redact import MIN_LENGTH, redactor

PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n"


def test_a_value_is_replaced_by_its_name_wherever_it_stands() -> None:
    redact = redactor({"API_KEY": "sk-1234567890", "PORT": "8080"})

    assert redact("key=sk-1234567890, sk-1234567890! on 8080") == "key=[redacted:API_KEY], [redacted:API_KEY]! on 8080"


def test_short_values_are_left_alone() -> None:
    redact = redactor({"DEBUG": "true", "SEVEN": "x" * (MIN_LENGTH - 1), "EIGHT": "y" * MIN_LENGTH})

    assert redact("true xxxxxxx yyyyyyyy") == "true xxxxxxx [redacted:EIGHT]"


def test_a_longer_value_wins_over_the_part_of_it_that_is_a_value_too() -> None:
    redact = redactor({"PASSWORD": "hunter2hunter2", "URL": "postgres://ada:hunter2hunter2@db/x"})

    assert redact("postgres://ada:hunter2hunter2@db/x") == "[redacted:URL]"
    assert redact("hunter2hunter2") == "[redacted:PASSWORD]"


def test_a_value_is_text_not_a_pattern() -> None:
    redact = redactor({"ODD": ".*(a|b)+\\d"})

    assert redact("nothing here, but .*(a|b)+\\d") == "nothing here, but [redacted:ODD]"


def test_each_line_of_a_value_is_secret_because_output_comes_in_lines() -> None:
    redact = redactor({"KEY": PEM})

    for line in PEM.splitlines():
        assert redact(f"  {line}") == "  [redacted:KEY]"
    assert "MIIE" not in redact(PEM)


@pytest.mark.parametrize("secret", [PEM, 'quote"quote"', "back\\slash\\", "tab\tand\x01control", "grün☃grün☃"])
def test_a_value_is_found_in_json_as_well(secret: str) -> None:
    redact = redactor({"SECRET": secret})

    for ensure_ascii in (True, False):
        assert redact(json.dumps({"echo": secret}, ensure_ascii=ensure_ascii)) == '{"echo": "[redacted:SECRET]"}'


def test_without_secrets_text_stays_as_it_is() -> None:
    assert redactor({})("text") == "text"
    assert redactor({"EMPTY": "", "SPACES": " " * 20})("a" + " " * 20 + "b") == "a" + " " * 20 + "b"


@given(st.dictionaries(st.text("AB", min_size=1), st.text("abc\n", min_size=MIN_LENGTH, max_size=12)), st.text("abc\n"))
def test_no_line_of_a_secret_is_left(env: dict[str, str], text: str) -> None:
    redacted = redactor(env)(text)

    for line in "\n".join(env.values()).splitlines():
        assert len(line) < MIN_LENGTH or line not in redacted


def test_what_was_set_as_a_secret_is_hidden_though_it_is_short_and_under_its_own_name() -> None:
    redact = redactor({"URL": "redis://:pin9@cache/0", "PIN": "pin9"}, {"CACHE_PIN": "pin9"})

    assert redact("pin9 redis://:pin9@cache/0") == "[redacted:CACHE_PIN] [redacted:URL]"
    assert redactor({}, {"THREE": "abc"})("abc") == "abc"


@pytest.mark.parametrize("secret", ["p@ss w/rd+1", "grün&☃=%2B"])
def test_a_value_is_found_as_urls_write_it(secret: str) -> None:
    for redact in (redactor({"S": secret}), redactor({}, {"S": secret})):
        for written in (quote(secret, safe=""), quote(secret), quote_plus(secret)):
            assert redact(f"https://x/?q={written}&r=1") == "https://x/?q=[redacted:S]&r=1"


@pytest.mark.parametrize(
    ("secret", "written"),
    [
        ("wJalr/UtnFEMI/K7", r"wJalr\/UtnFEMI\/K7"),  # PHP
        ("grün/grün/grün", r"gr\u00fcn\/gr\u00fcn\/gr\u00fcn"),
        ("grün/grün/grün", r"grün\/grün\/grün"),  # PHP with JSON_UNESCAPED_UNICODE
        ("a<b>&c=grün", r"a\u003cb\u003e\u0026c=grün"),  # Go, Rails
        ("a<b>&c='grün'", r"a\u003cb\u003e\u0026c\u003d\u0027grün\u0027"),  # Gson
        ("a<b>&c='grün'", r"a\u003cb\u003e\u0026c=\u0027gr\u00fcn\u0027"),  # Flask
        ("grün☃grün", r"gr\u00FCn\u2603gr\u00FCn"),
        ("a<b>+'\"grün", r"a\u003Cb\u003E\u002B\u0027\u0022gr\u00FCn"),  # .NET
        (r"back\u00e4slash&", r"back\\u00e4slash\u0026"),
        ("p@ss w/rd+1", "p%40ss%20w%2frd%2b1"),
        ("p@ss w/rd+1", "p%40ss+w%2frd%2b1"),
        ("grüngrüngrün", "gr%c3%bcngr%c3%bcngr%c3%bcn"),
        ("grüngrüngrün", "gr%C3%BCngr%C3%BCngr%C3%BCn"),
        ("it's (a) w/rd!*", "it's%20(a)%20w%2Frd!*"),  # JavaScript's encodeURIComponent
        ("https://a.b/c d?e='", "https://a.b/c%20d?e='"),  # JavaScript's encodeURI
        ("p@ss&w/rd=$", "p%40ss&w%2Frd=$"),  # a password in a URL of Go's
        ('it\'s a "grün"', repr('it\'s a "grün"')[1:-1]),
        ("it's a secret", repr("it's a secret")[1:-1]),
        ("tab\tgrün\x01\\", repr("tab\tgrün\x01\\")[1:-1]),
        ("tab\tgrün\x01\\", ascii("tab\tgrün\x01\\")[1:-1]),
        ("tab\tgrün'\\", repr("tab\tgrün'\\".encode())[2:-1]),
        ("it's a secret", repr("'\"it's a secret").removeprefix("'\\'\"")[:-1]),
    ],
)
def test_a_value_is_found_as_other_languages_write_it(secret: str, written: str) -> None:
    for redact in (redactor({"S": secret}), redactor({}, {"S": secret})):
        assert redact(f"it is {written}.") == "it is [redacted:S]."


def test_of_values_that_begin_alike_the_longest_is_found() -> None:
    values = {f"V{length}": "abcdefghijkl"[:length] for length in range(MIN_LENGTH, 13)}
    redact = redactor(values, {"FIVE": "abcde", "FOUR": "abcd"})

    assert redact("abcdefghijkl abcdefghi abcdef") == "[redacted:V12] [redacted:V9] [redacted:FIVE]f"


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
@pytest.mark.parametrize("after", ["", "x", "xy", "xyz"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_secret_is_found_in_base64_wherever_it_begins(
    before: str, after: str, encode: Callable[[bytes], bytes]
) -> None:
    secret = "k\u00ff>?k~" * 3
    encoded = encode(f"{before}{secret}{after}".encode()).decode()

    for redact in (redactor({"S": secret}), redactor({}, {"S": secret})):
        told = redact(f"Basic {encoded}")
        assert "[redacted:S]" in told
        assert len(told) < len("Basic [redacted:S]") + 11, "what is left are the neighbours' characters"

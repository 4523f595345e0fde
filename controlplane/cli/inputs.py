"""Documents that an operator hands over: a file, `-` for standard input, or JSON on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from controlplane.packing.jsonc import plain_json

MAX_INPUT_BYTES = 100 * 1024 * 1024
"""The API's own bound for uploads; reading more could only be refused."""


def read_bytes(source: str) -> bytes:
    """Read a file, or standard input for `-`.

    Raises:
        click.ClickException: it cannot be read, or is too large.
    """
    try:
        content = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1) if source == "-" else _read_file(Path(source))
    except OSError as error:
        raise click.UsageError(f"{source}: {error.strerror}") from error
    if len(content) > MAX_INPUT_BYTES:
        raise click.UsageError(f"{source}: larger than the {MAX_INPUT_BYTES // 2**20} MiB that the API takes")
    return content


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_INPUT_BYTES + 1)


def parse_json(content: bytes | str, source: str) -> Any:
    """Parse a JSON document.

    Raises:
        click.UsageError: it is none; the message says where.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{source}: not valid JSON: {error}") from error


def parse_jsonc(content: bytes, source: str) -> Any:
    """Parse JSON as editors write it: comments and trailing commas are allowed.

    Raises:
        click.UsageError: it is none; the message says where.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{source}: not UTF-8 text") from error
    return parse_json(plain_json(text), source)

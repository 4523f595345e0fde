"""`KEY=VALUE` on the command line, for environment variables, labels and parameters. Pure, but for `os.environ`."""

from __future__ import annotations

import json
import os
from typing import Any

import click


def split_pair(text: str, what: str) -> tuple[str, str]:
    """Split at the first `=`.

    Raises:
        click.BadParameter: there is no `=`, or nothing before it.
    """
    key, found, value = text.partition("=")
    if not key or not found:
        raise click.BadParameter(f"{text!r} is not {what}=VALUE")
    return key, value


def labels_of(pairs: tuple[str, ...]) -> dict[str, str]:
    """Read `-l KEY=VALUE` options."""
    return dict(split_pair(pair, "KEY") for pair in pairs)


def environment_of(pairs: tuple[str, ...]) -> dict[str, str]:
    """Read `-e KEY=VALUE` options; a bare `-e KEY` takes the value from our own environment, off the process list.

    Raises:
        click.BadParameter: a bare name is not set here.
    """
    environment = {}
    for pair in pairs:
        if "=" in pair:
            key, value = split_pair(pair, "NAME")
        elif pair in os.environ:
            key, value = pair, os.environ[pair]
        else:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE, and no variable of that name is set here")
        environment[key] = value
    return environment


def parameters_of(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Read `-p KEY=VALUE` options: a value that is JSON counts as such, any other is a string."""
    return {key: _value(value) for key, value in (split_pair(pair, "KEY") for pair in pairs)}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text

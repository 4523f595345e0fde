"""The settings as they are found where a program is started: its environment, `.env`, and the files that those name."""

from __future__ import annotations

import os
from pathlib import Path

from dotenv import dotenv_values

from controlplane.config import Config, load, with_files

SECRET_FILE_CHARS = 16384


def settings() -> Config:
    """Read them.

    Raises:
        ConfigError: they cannot be used.
    """
    from_file = {name: value for name, value in dotenv_values(".env").items() if value is not None}
    return load(with_files(from_file | dict(os.environ), _read_secret))


def _read_secret(path: Path) -> str:
    """The text of a file that a variable names; a long one is another file than was meant."""
    with open(path, encoding="utf-8", errors="strict") as file:
        try:
            text = file.read(SECRET_FILE_CHARS + 1)
        except UnicodeDecodeError:
            raise ValueError("it is not text") from None
    if len(text) > SECRET_FILE_CHARS:
        raise ValueError(f"it holds more than {SECRET_FILE_CHARS} characters")
    return text

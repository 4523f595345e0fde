"""`corral up`: become the control plane. Flags turn into the environment variables that it reads."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

FLAGS = {
    "host": "HOST",
    "port": "PORT",
    "home": "CORRAL_HOME",
    "database_url": "DATABASE_URL",
    "redis_url": "REDIS_URL",
    "log_level": "LOG_LEVEL",
}
"""Each flag's variable; every other setting is a variable only (`.env.example` lists them)."""

EPILOG = """\b
Every setting is an environment variable too, and .env in this folder is read;
.env.example lists them all.
Exit codes: 0 stopped, 70 internal error, 78 wrong configuration.
"""


@click.command(short_help="Start the control plane and all that it needs; Ctrl-C stops it.", epilog=EPILOG)
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="PORT", help="Port to listen on; 0: any free one.  [default: 8000]"
)
@click.option("--home", type=click.Path(file_okay=False), help="Folder of all data.")
@click.option("--database-url", metavar="URL", help="Postgres to use; without: an embedded one is started.")
@click.option("--redis-url", metavar="URL", help="Redis to use; without: an embedded Valkey is started.")
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    help="Detail of its log.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Take over from the control plane that runs on the same folder of data, if one does.",
)
def up(*, replace: bool, **flags: str | int | None) -> NoReturn:
    """Start the control plane and everything it needs; Ctrl-C stops all of it."""
    environment = dict(os.environ)
    environment.update({FLAGS[flag]: str(value) for flag, value in flags.items() if value is not None})
    # -P: a module in the caller's folder must never be imported in place of ours.
    words = [sys.executable, "-P", "-m", "controlplane"]
    os.execve(sys.executable, words + ["--replace"] * replace, environment)

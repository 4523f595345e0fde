"""`python -m tui`: what `corral tui` runs, with the control planes in its environment."""

from __future__ import annotations

import os
import sys

import click

from tui.app import Dashboard
from tui.contexts import take
from tui.themes import DEFAULT

EXIT_USAGE = 2


@click.command()
@click.option("--read-only", is_flag=True)
@click.option("--theme", default=DEFAULT)
def main(*, read_only: bool, theme: str) -> None:
    """Run the dashboard."""
    try:
        contexts = take(os.environ)
    except ValueError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_USAGE)
    Dashboard(contexts, read_only=read_only, theme=theme).run()


if __name__ == "__main__":
    main()

"""`python -m tui`: what `corral tui` becomes, with the control planes in its environment."""

from __future__ import annotations

import asyncio
import os
import sys

import click

from controlplane.wire.text import clean
from tui.contexts import VARIABLE, Contexts, take
from tui.themes import DEFAULT, NAMES
from tui.web.tether import end_with_server, hide_memory

EXIT_USAGE = 2
EXIT_FAILED = 1


@click.command()
@click.option("--read-only", is_flag=True, help="Change nothing.")
@click.option("--theme", default=DEFAULT, help="Its colours.")
@click.option("--once", is_flag=True, help="Print one picture and exit.")
@click.option("--json", "as_json", is_flag=True, help="With --once: as JSON.")
@click.option("--web", is_flag=True, help="Serve it to a browser on this machine.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="With --web: the port; 0: any free one.")
@click.option("--no-open", is_flag=True, help="With --web: do not open the browser.")
def main(*, read_only: bool, theme: str, once: bool, as_json: bool, web: bool, port: int, no_open: bool) -> None:
    """Run the dashboard: in this terminal, once, or for a browser."""
    hide_memory()
    end_with_server()
    kept = os.environ.get(VARIABLE, "")
    try:
        contexts = take(os.environ)
    except ValueError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_USAGE)
    if theme not in NAMES:
        click.echo(f"There is no theme {clean(theme)}. There are {', '.join(NAMES)}.", err=True)
        sys.exit(EXIT_USAGE)
    if once:
        from tui.once import print_once  # noqa: PLC0415  (the others are not loaded for it)

        sys.exit(asyncio.run(print_once(contexts.current, as_json=as_json)))
    arguments = ["--theme", theme] + ["--read-only"] * read_only
    if web:
        sys.exit(_serve(arguments, {VARIABLE: kept} if kept else _by_hand(contexts), port, open_browser=not no_open))
    from tui.app import Dashboard  # noqa: PLC0415

    dashboard = Dashboard(contexts, read_only=read_only, theme=theme)
    dashboard.run()
    sys.exit(dashboard.return_code or 0)


def _by_hand(contexts: Contexts) -> dict[str, str]:
    """The environment of a tab's program where `corral tui` did not make one."""
    token = contexts.current.token
    return {"CORRAL_URL": contexts.current.url} | ({"CORRAL_TOKEN": token} if token else {})


def _serve(arguments: list[str], environment: dict[str, str], port: int, *, open_browser: bool) -> int:
    try:
        from tui.web.server import DashboardServer  # noqa: PLC0415
    except ModuleNotFoundError as error:
        click.echo(f"The dashboard in a browser needs {error.name}: install corral[web].", err=True)
        return EXIT_FAILED
    try:
        asyncio.run(DashboardServer(arguments, environment, port).run(open_browser=open_browser))
    except OSError as error:
        click.echo(f"Cannot serve on port {port}: {error.strerror}. --port 0 takes any free one.", err=True)
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    main()

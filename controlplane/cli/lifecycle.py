"""`corral start · stop · restart · rm`: what an instance is wished to do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from controlplane.cli.client import path_of
from controlplane.cli.outcome import interrupted, settle
from controlplane.cli.progress import phases_shown
from controlplane.cli.session import Session, json_option, names_argument, pass_session, wait_option

if TYPE_CHECKING:
    from controlplane.cli.client import Answer

WAIT_S = 60.0
STOP_WAIT_S = 30.0
"""The stop ladder and the drain take under 10 s."""


def _own_name(name: str) -> str:
    return name.rpartition("/")[2]


def _ask(session: Session, name: str, verb: str, wanted: str, wait_s: float) -> None:
    instance = session.api.get(path_of("instances", name)).document
    own_name, began = str(instance.get("name")), time.monotonic()
    try:
        with phases_shown(session, own_name, instance.get("instance_id")):
            answer = session.api.post(path_of("instances", name, verb), wait_s=wait_s, wait=wait_s)
    except KeyboardInterrupt:
        raise interrupted(session, name, verb) from None
    settle(session, answer, wanted=wanted, wait_s=wait_s, took_s=time.monotonic() - began)


@click.command(short_help="Start stopped or failed instances.")
@names_argument
@wait_option(WAIT_S)
@json_option
@pass_session
def start(session: Session, /, *, names: tuple[str, ...], wait_s: float) -> None:
    """Start stopped or failed instances and wait until they run."""
    for name in names:
        _ask(session, name, "start", "running", wait_s)


@click.command(short_help="Stop instances; they stay deployed.")
@names_argument
@wait_option(STOP_WAIT_S)
@json_option
@pass_session
def stop(session: Session, /, *, names: tuple[str, ...], wait_s: float) -> None:
    """Stop instances. They stay deployed, and stay stopped when Corral starts again."""
    for name in names:
        _ask(session, name, "stop", "stopped", wait_s)


@click.command(short_help="Stop and start instances.")
@names_argument
@wait_option(WAIT_S)
@json_option
@pass_session
def restart(session: Session, /, *, names: tuple[str, ...], wait_s: float) -> None:
    """Stop instances, start them again, and wait until they run."""
    for name in names:
        _ask(session, name, "restart", "running", wait_s)


def _remove(session: Session, name: str) -> Answer:
    with session.screen.busy(f"removing {name}"):
        return session.api.delete(path_of("instances", name))


@click.command(short_help="Stop and remove instances.")
@names_argument
@json_option
@pass_session
def rm(session: Session, /, *, names: tuple[str, ...]) -> None:
    """Stop and remove instances, once no process of theirs is left; their logs are kept for the retention time."""
    for name in names:
        answer = _remove(session, name)
        if not session.shown_as_json(answer):
            session.screen.line((_own_name(name), "bold"), " is removed")

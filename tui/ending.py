"""How the dashboard ends when nobody asked it to: at a signal, and at an error of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from controlplane.wire.text import clean_lines

if TYPE_CHECKING:
    from textual.app import App

LEAVING_S = 3.0
"""To put the terminal back as it was and to go; a terminal that has gone may never take what is written to it."""
STATUSES = {signal.SIGINT: 0, signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGHUP: 128 + signal.SIGHUP}
"""Signals that end it, also where it was started with them ignored, and the exit status then; SIGINT is as Ctrl-C."""
HIDDEN = "[token]"


def leave_at_signals(app: App[Any]) -> None:
    """Put the terminal back before going, when told to go or when the terminal is closed; a second one kills.

    Without a terminal of its own, in a test, the process is not the app's to end.
    """
    if app.is_headless:
        return
    loop = asyncio.get_running_loop()
    for number in STATUSES:
        with suppress(ValueError, RuntimeError):  # not in the main thread
            loop.add_signal_handler(number, _leave, app, number)


def _leave(app: App[Any], number: signal.Signals) -> None:
    loop = asyncio.get_running_loop()
    for each in STATUSES:
        loop.remove_signal_handler(each)
    status = STATUSES[number]
    signal.signal(signal.SIGALRM, lambda *_: os._exit(status))
    signal.setitimer(signal.ITIMER_REAL, LEAVING_S)
    app.exit(return_code=status)


def last_words(error: BaseException | None, secrets: Sequence[str]) -> list[str]:
    """What is printed of an error that ends the program: where it was, never the values that were in hand."""
    if error is None:
        return []
    text = "".join(traceback.format_exception(error))
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return [*clean_lines(text), "This is a fault of the dashboard, not of what it shows."]

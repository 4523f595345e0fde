"""What can be taken out of the inspector: the result, or the request as a command or a script."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define

from controlplane.wire.text import clean
from tui.inspector import snippets
from tui.inspector.jsontext import pretty
from tui.inspector.verdict import reading
from tui.screens.choosing import MenuScreen, NameScreen

if TYPE_CHECKING:
    from tui.app import Dashboard
    from tui.inspector.desk import Draft
    from tui.widgets.call_request import CallRequest

OF_RESULT = (
    ("json", "the result as JSON"),
    ("text", "the result as text"),
    ("file", "the result into a file"),
)
OF_REQUEST = (
    ("curl", "the request as curl"),
    ("call", "the request as corral call"),
    ("python", "the request as Python"),
)


@define(eq=False)
class Copies:
    """One turn of the copy menu. The token is never copied: snippets name `$CORRAL_TOKEN`."""

    dashboard: Dashboard
    draft: Draft
    instance: str
    asking: CallRequest

    async def run(self) -> None:
        """Ask what is wanted, and do it."""
        options = (OF_RESULT if self.draft.outcome is not None else ()) + OF_REQUEST
        chosen = await self.dashboard.push_screen_wait(MenuScreen("Copy", options))
        if chosen == "file":
            await self._save()
        elif chosen in dict(OF_RESULT):
            self._copy(self._result(chosen), dict(OF_RESULT)[chosen])
        elif chosen is not None:
            self._copy_request(chosen)

    def _result(self, form: str) -> str:
        outcome = self.draft.outcome
        assert outcome is not None
        if form == "json":
            return pretty(outcome.document)
        return "\n".join("\n".join(block.lines) for block in reading(outcome))

    def _copy_request(self, form: str) -> None:
        attempt = self.asking.attempt()
        if attempt.request is None:
            self.dashboard.warn(attempt.wrong)
            return
        context = self.dashboard.plane.context
        target = snippets.Target(context.url, self.instance, has_token=context.token is not None)
        write = {"curl": snippets.curl, "call": snippets.corral_call, "python": snippets.python}[form]
        self._copy(write(target, attempt.request.method, attempt.request.params), dict(OF_REQUEST)[form])

    def _copy(self, text: str, what: str) -> None:
        self.dashboard.copy_to_clipboard(text)
        self.dashboard.notify(f"{what} is in the clipboard", markup=False)

    async def _save(self) -> None:
        text = self._result("json") + "\n"
        default = f"{self.instance.replace('/', '-')}-result.json"
        if self.dashboard.is_web:  # to the browser: the dashboard's own disk is not the person's
            self.dashboard.deliver_text(io.StringIO(text), save_filename=default)
            return
        note = f"below {Path.cwd()} unless it begins with /"
        name = await self.dashboard.push_screen_wait(NameScreen("Save the result as", default, clean(note)))
        if name:
            self._write(name, text)

    def _write(self, name: str, text: str) -> None:
        """A new file that only its owner can read: a result may hold anything."""
        path = Path(name).expanduser()
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except FileExistsError:
            self.dashboard.warn(f"{path} is there already", "Choose another name.")
        except OSError as error:
            self.dashboard.warn("It was not saved", str(error))
        else:
            self.dashboard.notify(f"saved as {clean(path)}", markup=False)

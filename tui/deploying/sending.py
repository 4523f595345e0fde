"""Send a deploy or a redeploy, and hear how it goes on until it is answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from attrs import define, field, frozen

from controlplane.packing.refusal import Unusable
from controlplane.packing.sources import source_of
from controlplane.wire.text import clean
from tui.client import Failure, failure_of, path_of
from tui.deploying.course import Course
from tui.deploying.draft import Draft, Wrong, request_of

if TYPE_CHECKING:
    from tui.client import Api

DEPLOY_PATH = "/api/v2/deploy"
WAIT_S = 300
"""The most that the API waits; what takes longer goes on there, and the fleet shows how."""
SILENCE_S = 45.0
"""A stream without a byte for three heartbeats is dead; the packing of a large upload is over before it begins."""
SECRETS_SHOWN = 5
"""Names in the question whether files that may hold a secret are sent; the rest as a number."""


@frozen(kw_only=True)
class Parcel:
    """One request: where it goes, what it says, and the archive beside it."""

    name: str
    path: str = DEPLOY_PATH
    what: str = "deploy"
    document: Mapping[str, Any] = field(factory=dict, repr=False)
    upload: IO[bytes] | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    """What a person should know of it: how much was packed, and what looks as if it should have stayed."""
    secrets: tuple[str, ...] = ()
    """Clean names of files in the archive that may hold a secret: to be asked about before it is sent."""

    @property
    def question(self) -> str:
        """Whether these files are to be sent along."""
        shown = "\n".join(f"  {name}" for name in self.secrets[:SECRETS_SHOWN])
        more = len(self.secrets) - SECRETS_SHOWN
        shown += f"\n  and {more:,} more" if more > 0 else ""
        return f"This may hold a secret, and would be sent along:\n{shown}\nWhat .gitignore names stays here. Send it?"


def pack(draft: Draft, stack: ExitStack) -> Parcel | list[Wrong]:
    """Make a request of a draft, with the folder or file that it names. Blocking: reads the disk, and runs git.

    Args:
        draft: What was typed.
        stack: Closes what had to be opened.
    """
    document, wrong = request_of(draft)
    upload: IO[bytes] | None = None
    notes: list[str] = []
    secrets: tuple[str, ...] = ()
    if draft.way == "local" and draft.text("path"):
        try:
            source = source_of(str(Path(draft.text("path")).expanduser()), stack)
        except (Unusable, RuntimeError) as error:  # the latter: `~nobody`
            wrong.append(Wrong("path", clean(error)))
        else:
            document, upload = {**source.fields, **document}, source.upload
            if source.packed is not None:
                secrets = tuple(map(clean, source.packed.secrets))
                notes = [source.summary, *(f"{name}: it may hold a secret" for name in secrets)]
    if wrong:
        return wrong
    path, what = DEPLOY_PATH, "deploy"
    if draft.failed is not None and draft.failed[1] == draft.name:
        # The attempt before left a failed instance of this name: it gets the new source.
        path, what = path_of("instances", draft.failed[0], "redeploy"), "redeploy"
        document = {"environment_vars": {}, "labels": {}} | {k: v for k, v in document.items() if k != "name"}
    return Parcel(
        name=draft.name,
        path=path,
        what=what,
        document=document,
        upload=upload,
        notes=tuple(notes),
        secrets=secrets,
    )


def redeploy_of(instance_id: str, name: str) -> Parcel:
    """The same source anew."""
    return Parcel(name=name, path=path_of("instances", instance_id, "redeploy"), what="redeploy")


@define(eq=False)
class Deployment:
    """One request under way. It lives as long as the dashboard, whatever is looked at meanwhile."""

    api: Api
    parcel: Parcel
    clock: Callable[[], float]
    held: ExitStack = field(factory=ExitStack, repr=False)
    """What must stay open until it was answered; closed then."""
    on_end: Callable[[], None] | None = None
    course: Course = field(init=False)
    failure: Failure | None = field(default=None, init=False)
    taken: asyncio.Event = field(factory=asyncio.Event, init=False)
    """Set once the server has taken the request, or refused it."""

    def __attrs_post_init__(self) -> None:
        self.course = Course(self.parcel.name, self.clock(), self.parcel.what)

    @property
    def was_taken(self) -> bool:
        """Whether there is an instance that this is about."""
        return bool(self.course.instance_id)

    async def run(self) -> None:
        """Send it and follow it to its end; a failure is kept, not raised."""
        try:
            await self._converse()
        except Failure as failure:
            self._fail(failure)
        finally:
            self.held.close()
            if self.on_end is not None:
                self.on_end()
            self.taken.set()

    async def _converse(self) -> None:
        course, parcel = self.course, self.parcel
        async for event in self.api.events(
            parcel.path,
            method="POST",
            document=dict(parcel.document),
            query={"wait": WAIT_S},
            silence_s=SILENCE_S,
            upload=parcel.upload,
        ):
            said = _object(event.data)
            if event.event == "answer":
                course.finish(200, said, self.clock())
                return
            match said:
                case {"type": "result", "status": int(status), "instance": {} as instance}:
                    course.finish(status, instance, self.clock())
                    return
                case {"type": "problem", "status": int(status), "problem": {} as problem}:
                    raise failure_of(status, problem, self.api.context)
                case _:
                    course.take(said, self.clock())
            self.taken.set()
        raise Failure("The server ended the connection before it said what came out", code="away")

    def _fail(self, failure: Failure) -> None:
        document = failure.document
        if isinstance(document, Mapping) and document.get("instance_id"):
            self.course.instance_id = clean(document["instance_id"])
        self.failure = failure
        self.course.fail(self.clock(), lost=self.was_taken and failure.code == "away")


def _object(data: str) -> dict[str, Any]:
    """An event's object.

    Raises:
        Failure: it is none.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Failure("The answer is not one of Corral's", "an event of it is no object", "Is the URL right?")
    return document

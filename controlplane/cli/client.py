"""The HTTP side: requests and event streams to the control plane, with every failure mapped once.

What comes back is either an `Answer` or a `CommandFailed` that says what happened and what to do; nothing of httpx
leaves this module. Owns no rendering.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import httpx
from attrs import define, evolve, field, frozen

from controlplane.cli.exits import CommandFailed, Exit, Problem, problem_of, program
from controlplane.cli.target import LOCAL
from controlplane.wire.sse import SseEvent, SseParser, SseTooLong

if TYPE_CHECKING:
    from controlplane.cli.target import Target

CONNECT_TIMEOUT_S = 5.0
"""A control plane that does not take a connection within this is away."""
ANSWER_TIMEOUT_S = 30.0
"""For an answer, beyond what the request itself asked the server to wait: no route takes longer."""
SILENCE_S = 45.0
"""A stream without a byte for three heartbeats is dead, whatever TCP thinks."""
RETRY_FIRST_S, RETRY_MOST_S = 0.5, 5.0
"""Between two attempts to take up a stream again; doubled each time."""
RETRY_FOR_S = 60.0
"""A stream is given up after this long without a connection: a restart of the control plane takes far less."""
EXCERPT_CHARS = 300
"""Of an answer that is not Corral's own, such as a proxy's error page."""

Query = Mapping[str, str | int | float | bool | None]


def path_of(*parts: str) -> str:
    """Join path segments, each quoted as a whole."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


@frozen
class Answer:
    """A successful answer: the status, the body as it came, and what it says."""

    status: int
    body: bytes = field(repr=False)
    document: Any


@frozen
class Body:
    """What a request carries: a JSON document, and a file beside it if there is one, read as it is sent."""

    document: bytes
    file: IO[bytes] | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.file is not None else {"Content-Type": "application/json"}

    @property
    def content(self) -> dict[str, Any]:
        """As httpx takes it."""
        if self.file is None:
            return {"content": self.document}
        spec = (None, self.document, "application/json")
        return {"files": [("spec", spec), ("source", ("source", self.file, "application/octet-stream"))]}


def _heard(response: httpx.Response, told: Callable[[dict[str, Any]], None]) -> Answer:
    parser = SseParser()
    for chunk in response.iter_bytes():
        for event in parser.feed(chunk):
            document = json.loads(event.data)
            if document["type"] == "result":
                return Answer(document["status"], json.dumps(document["instance"]).encode(), document["instance"])
            if document["type"] == "problem":
                problem = problem_of(document["problem"], status=document["status"])
                raise CommandFailed(problem, problem.exit_code, json.dumps(document["problem"]).encode())
            told(document)
    title = "The server ended the connection before it said what came out"
    raise CommandFailed(Problem(title=title, hint="The work goes on there."), Exit.NO_CONNECTION)


def _not_ours(response: httpx.Response) -> Problem:
    kind = response.headers.get("content-type", "nothing").split(";")[0]
    return Problem(
        title=f"HTTP {response.status_code} from something that is not Corral",
        detail=f"{kind}: {response.text[:EXCERPT_CHARS].strip()}",
        status=response.status_code,
        hint="Is the URL right? A proxy in between may have answered in Corral's place.",
        request_id=response.headers.get("x-request-id", ""),
    )


def _read(response: httpx.Response, target: Target) -> Answer:
    """Tell an answer from a problem.

    Raises:
        CommandFailed: the server refused or failed, or it is not Corral at all.
    """
    try:
        document = json.loads(response.content)
    except ValueError:
        raise CommandFailed(_not_ours(response), _not_ours(response).exit_code) from None
    if response.is_success:
        return Answer(response.status_code, response.content, document)
    if not isinstance(document, dict):
        raise CommandFailed(_not_ours(response))
    problem = problem_of(document, status=response.status_code, retry_after=response.headers.get("retry-after", ""))
    if response.status_code == httpx.codes.UNAUTHORIZED:
        problem = evolve(problem, hint=about_token(target))
    raise CommandFailed(problem, problem.exit_code, response.content)


def about_token(target: Target) -> str:
    """Say about a 401 what the server cannot know: where the token in use came from."""
    if target.token:
        return f"The token came from {target.origin}."
    if target.context != LOCAL:
        give = f"{program()} context add {target.context} {target.url} --force"
        return f"The context {target.context} has no token: `{give}` asks for one."
    host = urlsplit(target.url).netloc
    return f"No token was sent to {host}: set CORRAL_TOKEN, or run this as the user that runs `{program()} up`."


def read_only(target: Target, detail: str) -> CommandFailed:
    """Say that nothing is changed in this context."""
    hint = "It was added with --read-only. Name another one with --context, or add it anew (--force) without."
    problem = Problem(title=f"The context {target.context} is read-only", detail=detail, hint=hint)
    return CommandFailed(problem, Exit.USAGE)


def lost(target: Target, error: Exception) -> CommandFailed:
    """Map what httpx raises; a refused connection is by far the most common."""
    url = target.url
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        problem = Problem(title="No answer in time", detail=f"{url} took the request but did not answer")
        return CommandFailed(problem, Exit.TIMEOUT)
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        title, hint = f"Cannot connect to {url}", f"Start it with `{program()} up`"
        if not target.is_loopback:
            hint = "Is it running, and reachable from here?"
        elif target.origin == "no credentials file":
            hint += ", or set CORRAL_URL and CORRAL_TOKEN for one that runs elsewhere"
        detail = re.sub(r"^\[Errno -?\d+\] ", "", str(error))
        return CommandFailed(Problem(title=title, detail=detail, hint=hint + "."), Exit.NO_CONNECTION)
    problem = Problem(title=f"The connection to {url} broke", detail=str(error) or type(error).__name__)
    return CommandFailed(problem, Exit.NO_CONNECTION)


@define
class Api:
    """One control plane, as seen with one token."""

    target: Target
    _http: httpx.Client = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        headers = {"Accept": "application/json", "User-Agent": "corral-cli"}
        if self.target.token:
            headers["Authorization"] = f"Bearer {self.target.token}"
        # A proxy named in the environment must not see what is meant for this machine.
        self._http = httpx.Client(
            base_url=self.target.url,
            headers=headers,
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            trust_env=not self.target.is_loopback,
        )

    def close(self) -> None:
        self._http.close()

    def _may(self, method: str, path: str) -> None:
        """Keep to a context that is read-only.

        Raises:
            CommandFailed: it is, and this is no reading.
        """
        if self.target.read_only and method != "GET":
            raise read_only(self.target, f"{method} {path} was not sent")

    def get(self, path: str, **query: str | float | bool | None) -> Answer:
        """GET; a query member that is None is left out."""
        return self.request("GET", path, query=query)

    def post(self, path: str, document: Any = None, *, wait_s: float = 0, **query: str | float | None) -> Answer:
        """POST a JSON document (or none); `wait_s` is how long the server was asked to take."""
        content = None if document is None else json.dumps(document).encode()
        return self.request("POST", path, query=query, content=content, wait_s=wait_s)

    def patch(self, path: str, document: Any) -> Answer:
        """PATCH with a JSON document."""
        return self.request("PATCH", path, content=json.dumps(document).encode())

    def delete(self, path: str) -> Answer:
        return self.request("DELETE", path)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0,
    ) -> Answer:
        """Send one request and read its whole answer.

        Args:
            method: The HTTP method.
            path: The path below the base URL, already quoted.
            query: Query members; None is left out.
            content: A JSON body.
            headers: More headers.
            wait_s: Seconds that the server may take by the request's own terms, on top of the usual bound.

        Raises:
            CommandFailed: no connection, no answer in time, a problem, or a change in a read-only context.
        """
        self._may(method, path)
        more = dict(headers or {})
        if content is not None:
            more["Content-Type"] = "application/json"
        try:
            response = self._http.request(
                method,
                path,
                params=_present(query),
                content=content,
                headers=more,
                timeout=httpx.Timeout(ANSWER_TIMEOUT_S + wait_s, connect=CONNECT_TIMEOUT_S),
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise lost(self.target, error) from error
        return _read(response, self.target)

    def converse(
        self,
        path: str,
        *,
        body: Body,
        told: Callable[[dict[str, Any]], None],
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0,
    ) -> Answer:
        """POST, and hear what happens until the answer is there.

        Args:
            path: The path below the base URL.
            body: What to send.
            told: Called with each event before the last, which holds the answer.
            query: Query members; None is left out.
            headers: More headers.
            wait_s: Seconds that the server may take by the request's own terms.

        Raises:
            CommandFailed: the server refused or failed, or the connection broke before the answer.
        """
        self._may("POST", path)
        more = {**(headers or {}), "Accept": "text/event-stream, application/json;q=0.5", **body.headers}
        timeout = httpx.Timeout(max(SILENCE_S, ANSWER_TIMEOUT_S + wait_s), connect=CONNECT_TIMEOUT_S)
        try:
            with self._http.stream(
                "POST", path, params=_present(query), headers=more, timeout=timeout, **body.content
            ) as response:
                if "text/event-stream" not in response.headers.get("content-type", ""):
                    response.read()
                    return _read(response, self.target)
                return _heard(response, told)
        except httpx.HTTPError as error:
            raise lost(self.target, error) from error
        except SseTooLong as error:
            raise CommandFailed(Problem(title="The event stream cannot be read", detail=str(error))) from error

    def stream(self, path: str, query: Query | None = None, last_event_id: str = "") -> Iterator[SseEvent]:
        """Yield the events of one SSE connection until it ends.

        Raises:
            CommandFailed: it could not be opened, broke, or was refused.
        """
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_TIMEOUT_S)
        try:
            with self._http.stream("GET", path, params=_present(query), headers=headers, timeout=timeout) as response:
                if not response.is_success or "text/event-stream" not in response.headers.get("content-type", ""):
                    response.read()
                    _read(response, self.target)
                    raise CommandFailed(_not_ours(response))
                parser = SseParser(last_event_id=last_event_id)
                for chunk in response.iter_bytes():
                    yield from parser.feed(chunk)
        except httpx.HTTPError as error:
            raise lost(self.target, error) from error
        except SseTooLong as error:
            raise CommandFailed(Problem(title="The event stream cannot be read", detail=str(error))) from error

    def follow(
        self, path: str, query: Query | None = None, *, on_break: Callable[[str], None], again: Query | None = None
    ) -> Iterator[SseEvent]:
        """Yield events for as long as the server has any, over as many connections as that takes.

        Args:
            path: The stream's path.
            query: Query members of the first connection.
            on_break: Told in a sentence, once, when the stream broke and is to be taken up again.
            again: Query members of the later connections, where they differ.

        Raises:
            CommandFailed: the first connection failed, the server refused, or it was away for `RETRY_FOR_S`.
        """
        last_event_id, delay, lost_at, worked, told = "", RETRY_FIRST_S, 0.0, False, False
        while True:
            try:
                for event in self.stream(path, query, last_event_id):
                    last_event_id, delay, lost_at, worked, told = event.id, RETRY_FIRST_S, 0.0, True, False
                    yield event
                reason = "the server ended the stream"
            except CommandFailed as failure:
                if not worked or not _passing(failure):
                    raise
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > RETRY_FOR_S:
                    raise
                reason = str(failure)
            if not told:
                on_break(f"{reason}; trying again")
            told = True
            time.sleep(delay)
            delay = min(delay * 2, RETRY_MOST_S)
            query = query if again is None else again


def _passing(failure: CommandFailed) -> bool:
    """Whether a stream may come back by itself: the server is away or restarting."""
    if failure.exit_code in (Exit.NO_CONNECTION, Exit.TIMEOUT):
        return True
    return failure.problem.status in (502, 503, 429)


def _present(query: Query | None) -> dict[str, str | int | float | bool]:
    return {name: value for name, value in (query or {}).items() if value is not None}

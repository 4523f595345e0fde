"""The HTTP side: requests and event streams to one control plane, with every failure mapped once.

What comes back is a decoded document, or a `Failure` that a person can read; nothing of httpx leaves this module.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import AsyncIterator, Mapping
from typing import IO, TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

import httpx
from attrs import define, field

from controlplane.wire.sse import SseEvent, SseParser, SseTooLong
from controlplane.wire.text import clean

if TYPE_CHECKING:
    from tui.contexts import Context

CONNECT_TIMEOUT_S = 5.0
"""A control plane that does not take a connection within this is away."""
ANSWER_TIMEOUT_S = 30.0
"""For an answer, beyond what the request itself asked the server to wait."""
SILENCE_S = 35.0
"""A stream without a byte for two heartbeats is dead, whatever TCP thinks."""
EXCERPT_CHARS = 200
NOT_CORRAL = "Is the URL right? A proxy may have answered."
MAX_STREAMS = 32
"""Connections at once: the fleet's stream, those of the open panes, and requests beside them."""

PAGES_MAX = 200
"""Of one list: a hundred thousand items. What has more has no end, and is no list of Corral's."""

Query = Mapping[str, Any]


@define(slots=False, eq=False)
class Failure(Exception):
    """Why there is no answer. `code` is the problem's, or `away` or `read_only`; `title` is one clean sentence."""

    title: str
    detail: str = ""
    hint: str = ""
    code: str = ""
    status: int = 0
    errors: tuple[tuple[str, str], ...] = ()
    """Of a 422: JSON Pointer and message of each wrong place."""
    document: Any = field(default=None, repr=False)

    @property
    def is_passing(self) -> bool:
        """Whether trying again later may help: the server is away, starting or overrun."""
        return self.code == "away" or self.status in {429, 502, 503, 504}

    def __str__(self) -> str:
        return self.title + (f": {self.detail}" if self.detail else "")


def path_of(*parts: str) -> str:
    """Join path segments, each quoted as a whole."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


class Answer(dict[str, Any]):
    """An object that was answered. What is read from it and is not there is a `Failure`: something else has answered."""

    def __missing__(self, name: str) -> Any:
        raise Failure("The answer is not one of Corral's", f"it has no {name}", NOT_CORRAL)


@define(eq=False)
class Api:
    """One control plane, as seen with one token. In a read-only context everything but reading is refused here."""

    context: Context
    read_only: bool = False
    _http: httpx.AsyncClient = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        headers = {"Accept": "application/json", "User-Agent": "corral-tui"}
        if self.context.token and _fits_a_field(self.context.token):  # else the server says that it needs one
            headers["Authorization"] = f"Bearer {self.context.token}"
        # A proxy named in the environment must not see what is meant for this machine.
        self._http = httpx.AsyncClient(
            base_url=self.context.url,
            headers=headers,
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=MAX_STREAMS),
            trust_env=not _is_loopback(urlsplit(self.context.url).hostname or ""),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def get(self, path: str, **query: Any) -> Any:
        """Return the object at a path; a query member that is None is left out.

        Raises:
            Failure: no connection, no answer in time, a problem, or what only something else would answer.
        """
        found = await self.send("GET", path, query=query)
        if not isinstance(found, dict):
            raise Failure("The answer is not one of Corral's", "it is no object", NOT_CORRAL)
        return Answer(found)

    async def pages(self, path: str, noun: str, **query: Any) -> list[Any]:
        """Return all items of a list, over as many pages as it has.

        Raises:
            Failure: as for `send`; or it is no list of Corral's.
        """
        found: list[Any] = []
        cursor: str | None = None
        for _ in range(PAGES_MAX):
            page = await self.get(path, **{"limit": 500} | query, cursor=cursor)
            if not isinstance(page[noun], list):
                raise Failure("The answer is not one of Corral's", f"it has no list of {noun}", NOT_CORRAL)
            found += page[noun]
            cursor = page.get("next_cursor")
            if cursor is None:
                return found
        raise Failure("The answer is not one of Corral's", f"its {noun} have no end", "Is the URL right?")

    async def send(
        self,
        method: str,
        path: str,
        document: Any = None,
        *,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0,
    ) -> Any:
        """Send one request and return the document it is answered with (None for an empty answer).

        Args:
            method: The HTTP method.
            path: The path below the base URL, already quoted.
            document: A JSON body; None is none.
            query: Query members; None is left out.
            headers: More headers.
            wait_s: Seconds that the server may take by the request's own terms, on top of the usual bound.

        Raises:
            Failure: no connection, no answer in time, or a problem.
        """
        self._may(method)
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S + wait_s, connect=CONNECT_TIMEOUT_S)
        try:
            response = await self._http.request(
                method, path, params=_present(query), json=document, headers=dict(headers or {}), timeout=timeout
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _lost(self.context, error) from error
        return _document(response, self.context)

    async def events(
        self,
        path: str,
        *,
        method: str = "GET",
        document: Any = None,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        last_event_id: str = "",
        silence_s: float | None = None,
        upload: IO[bytes] | None = None,
    ) -> AsyncIterator[SseEvent]:
        """Yield the events of one connection until the server ends it. A plain answer is one event, `answer`.

        With an `upload` the document and the file, read as it is sent, are the parts `spec` and `source`.

        Raises:
            Failure: it could not be opened, broke, or was refused.
        """
        self._may(method)
        more = {"Accept": "text/event-stream, application/json;q=0.5", "Cache-Control": "no-store", **(headers or {})}
        if last_event_id and _fits_a_field(last_event_id):
            more["Last-Event-ID"] = last_event_id
        timeout = httpx.Timeout(SILENCE_S if silence_s is None else silence_s, connect=CONNECT_TIMEOUT_S)
        try:
            async with self._http.stream(
                method, path, params=_present(query), headers=more, timeout=timeout, **_body(document, upload)
            ) as response:
                if "text/event-stream" not in response.headers.get("content-type", ""):
                    await response.aread()
                    yield SseEvent(json.dumps(_document(response, self.context)), "answer", "")
                    return
                parser = SseParser(last_event_id=last_event_id)
                async for chunk in response.aiter_bytes():
                    for event in parser.feed(chunk):
                        yield event
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _lost(self.context, error) from error
        except SseTooLong as error:
            raise Failure("The event stream cannot be read", clean(error)) from error

    def _may(self, method: str) -> None:
        if (self.read_only or self.context.read_only) and method != "GET":
            raise Failure("This dashboard is read-only", f"context {self.context.name}", code="read_only")


def _body(document: Any, upload: IO[bytes] | None) -> dict[str, Any]:
    """As httpx takes it."""
    if upload is None:
        return {"json": document}
    spec = (None, json.dumps(document).encode(), "application/json")
    return {"files": [("spec", spec), ("source", ("source", upload, "application/octet-stream"))]}


def _document(response: httpx.Response, context: Context) -> Any:
    """Tell an answer from a problem.

    Raises:
        Failure: the server refused or failed, or it is not Corral at all.
    """
    if response.is_success and not response.content:
        return None
    try:
        document = json.loads(response.content)
    except RecursionError as error:
        raise Failure("The answer is nested too deeply to be read", status=response.status_code) from error
    except ValueError:
        document = None
    if response.is_success and document is not None:
        return document
    if not isinstance(document, dict):
        excerpt = clean(response.text[:EXCERPT_CHARS].strip())
        title = f"HTTP {response.status_code} from something that is not Corral"
        raise Failure(title, excerpt, NOT_CORRAL, status=response.status_code)
    raise failure_of(response.status_code, document, context)


def failure_of(status: int, document: Mapping[str, Any], context: Context) -> Failure:
    """Read a problem document."""
    hint = clean(document.get("hint") or "")
    if status == httpx.codes.UNAUTHORIZED:
        hint = f"The token came from {context.origin}." if context.token else "No token: set CORRAL_TOKEN."
    wrong = document.get("errors")
    places = [entry for entry in wrong if isinstance(entry, dict)] if isinstance(wrong, list) else []
    return Failure(
        clean(document.get("title") or f"HTTP {status}"),
        clean(document.get("detail") or ""),
        hint,
        code=clean(document.get("code") or ""),
        status=status,
        errors=tuple((clean(p.get("pointer", "")), clean(p.get("message", ""))) for p in places),
        document=document,
    )


def _lost(context: Context, error: Exception) -> Failure:
    """Map what httpx raises; a refused connection is by far the most common."""
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return Failure("No answer in time", f"{context.url} is silent", code="away")
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        return Failure(f"Cannot connect to {context.url}", clean(error), "Is it running?", code="away")
    return Failure(f"The connection to {context.url} broke", clean(error) or type(error).__name__, code="away")


def _fits_a_field(text: str) -> bool:
    """Whether a text can stand in a field of HTTP; what cannot would end in an error that shows it."""
    return text.isascii() and text.isprintable() and text == text.strip()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _present(query: Query | None) -> dict[str, Any]:
    return {name: value for name, value in (query or {}).items() if value is not None}

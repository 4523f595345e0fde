"""Fetch an archive by https into a file: from an address that was judged, within a size and a time.

The connection goes to the judged address itself, while the certificate is checked against the name; each redirect is
judged anew. The bytes are taken as they are sent: nothing is decoded, and no header is believed but the length.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from io import FileIO
from pathlib import Path
from urllib.parse import urljoin

import httpx
import trio
from attrs import define, field, frozen

from controlplane.deploy.source.address import Egress, Route, route_to
from controlplane.deploy.source.giturl import Address, UrlRefused, read_archive_url
from controlplane.errors import CorralError, Overloaded, SourceRejected

MAX_REDIRECTS = 5
"""Code hosts use one or two on the way to their storage."""
CONNECT_LIMIT_S = 10.0
"""To one address; then the next one is tried."""
SILENCE_LIMIT_S = 30.0
"""Between two pieces of an answer."""
WRITE_BYTES = 2**20
"""Gathered before they go to the disk, so that a thread is asked once per MiB."""
HEADERS = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "corral"}

_NEEDS_LEAVE = frozenset({401, 403, 407})
_GONE = frozenset({404, 410})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@frozen(kw_only=True)
class Download:
    """What came. `final_url` is where it came from in the end; it may hold a signature in its query."""

    sha256: str
    size_bytes: int
    final_url: str


async def download(
    url: str,
    into: Path,
    *,
    limit_bytes: int,
    timeout_s: float,
    egress: Egress,
    ssl_context: ssl.SSLContext | None = None,
) -> Download:
    """Fetch `url` into the new file `into`; on failure, nothing is left of it.

    Args:
        url: As the owner wrote it.
        into: Does not exist; made readable for Corral alone.
        limit_bytes: The most that is taken.
        timeout_s: For everything, from the first look-up to the last byte.
        egress: What may be reached, and by which way.
        ssl_context: Whom to trust; None: the host's own trust, or what SSL_CERT_FILE and SSL_CERT_DIR name.

    Raises:
        SourceRejected: it cannot be had; the sentence says why.
        Overloaded: there is no room for it.
    """
    context = await trio.to_thread.run_sync(_host_trust) if ssl_context is None else ssl_context
    try:
        with _new_file(into) as file, trio.fail_after(timeout_s):
            return await _follow(_read(url), _Sink(file, limit_bytes), egress, context)
    except trio.TooSlowError:
        raise SourceRejected(
            f"fetching the archive took more than {timeout_s:g} s", hint="is its server slow? try again, or upload it"
        ) from None


def _host_trust() -> ssl.SSLContext:
    return ssl.create_default_context()


@contextmanager
def _new_file(path: Path) -> Iterator[FileIO]:
    """A file that stays only if nothing is raised."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb", buffering=0) as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@define
class _Sink:
    """The file, its size and its digest."""

    file: FileIO
    limit_bytes: int
    size_bytes: int = field(default=0, init=False)
    _digest: hashlib._Hash = field(factory=hashlib.sha256, init=False)
    _gathered: bytearray = field(factory=bytearray, init=False)

    async def take(self, data: bytes) -> None:
        self.size_bytes += len(data)
        self.check(self.size_bytes)
        self._digest.update(data)
        self._gathered += data
        if len(self._gathered) >= WRITE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        view = memoryview(bytes(self._gathered))
        self._gathered.clear()
        try:
            with trio.CancelScope(shield=True):  # bounded: one MiB; see `_take`
                while view:
                    view = view[await trio.to_thread.run_sync(self.file.write, view) :]
        except OSError as error:
            raise Overloaded(f"what was fetched cannot be kept: {error.strerror}") from None

    def check(self, size_bytes: int) -> None:
        if size_bytes > self.limit_bytes:
            raise SourceRejected(
                f"the archive is larger than {self.limit_bytes:,} bytes",
                hint="leave out what the build fetches anyway, or have the operator raise the limit",
            )

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


async def _follow(address: Address, sink: _Sink, egress: Egress, context: ssl.SSLContext) -> Download:
    for _ in range(MAX_REDIRECTS + 1):
        route = await route_to(address.host, address.port, egress)
        async with _answer(address, route, context) as answer:
            if answer.status_code not in _REDIRECTS:
                await _take(answer, address, sink)
                return Download(sha256=sink.sha256, size_bytes=sink.size_bytes, final_url=address.url)
            address = _next(answer, address)
    raise SourceRejected(f"the archive's address redirects more than {MAX_REDIRECTS} times")


def _read(url: str) -> Address:
    try:
        return read_archive_url(url)
    except UrlRefused as refused:
        raise SourceRejected(refused.message, hint=refused.hint) from None


def _next(answer: httpx.Response, address: Address) -> Address:
    place = answer.headers.get("location", "")
    try:
        return read_archive_url(urljoin(address.url, place.partition("#")[0]))
    except ValueError as error:  # urljoin's, and UrlRefused
        raise SourceRejected(
            f"{address.shown} redirects to what is not fetched from: {error}",
            hint="give the archive's final address, by https",
        ) from None


@asynccontextmanager
async def _answer(address: Address, route: Route, context: ssl.SSLContext) -> AsyncIterator[httpx.Response]:
    """Ask for it at the first of the addresses that answers."""
    timeout = httpx.Timeout(SILENCE_LIMIT_S, connect=CONNECT_LIMIT_S)
    client = httpx.AsyncClient(verify=context, proxy=route.proxy, timeout=timeout, trust_env=False)
    async with client:
        try:
            response = await _ask(client, address, route)
            try:
                yield response
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            raise _rejected(error, address) from None


async def _ask(client: httpx.AsyncClient, address: Address, route: Route) -> httpx.Response:
    urls = [httpx.URL(address.url)]
    extensions = {}
    if route.addresses:
        urls = [urls[0].copy_with(host=ip) for ip in route.addresses]
        extensions = {"sni_hostname": address.host}
    host = httpx.URL(address.url).netloc.decode("ascii")
    for url in urls:
        request = client.build_request("GET", url, headers={**HEADERS, "host": host}, extensions=extensions)
        with suppress(*([httpx.ConnectTimeout, httpx.ConnectError] if url is not urls[-1] else [])):
            return await client.send(request, stream=True, follow_redirects=False)
    raise AssertionError("the last address either answers or raises")


async def _take(answer: httpx.Response, address: Address, sink: _Sink) -> None:
    if answer.status_code != httpx.codes.OK:
        raise _unfit(answer.status_code, address)
    declared = answer.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit():
        sink.check(int(declared))
    failure: CorralError | None = None
    with trio.CancelScope() as rest:
        async for piece in answer.aiter_raw():
            try:
                await sink.take(piece)
            except CorralError as error:
                # raised below: httpx's nested generators are closed only by what comes from the innermost of them
                failure = failure or error
                rest.cancel()
    if failure is not None:
        raise failure
    await sink.flush()


def _unfit(status: int, address: Address) -> SourceRejected:
    if status in _GONE:
        return SourceRejected(f"there is nothing at {address.shown} ({status})", hint="check the address")
    if status in _NEEDS_LEAVE:
        return SourceRejected(
            f"{address.shown} is not public ({status})",
            hint="Corral has no name and password to give: make it public, sign its address, or upload the archive",
        )
    return SourceRejected(
        f"{address.shown} answers with status {status}", hint="try again later, or upload the archive"
    )


def _rejected(error: httpx.HTTPError, address: Address) -> SourceRejected:
    """What httpx raises, in a sentence."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return SourceRejected(
                f"the certificate of {address.host} is not valid: {cause.verify_message}",
                hint="an authority of your own is trusted once SSL_CERT_FILE of the control plane names it",
            )
        cause = cause.__cause__ or cause.__context__
    match error:
        case httpx.ProxyError():
            why = "the proxy of this control plane refuses to lead there"
        case httpx.ConnectTimeout():
            why = f"{address.host} does not answer"
        case httpx.ConnectError():
            why = f"{address.host} cannot be connected to"
        case httpx.TimeoutException():
            why = f"{address.host} sent nothing for {SILENCE_LIMIT_S:g} s"
        case _:
            why = f"{address.host} broke off, or does not speak HTTP"
    return SourceRejected(why, hint="check the address, and try again")

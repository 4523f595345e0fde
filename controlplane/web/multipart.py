"""A request of two parts (`multipart/form-data`, RFC 7578): `spec`, which is JSON, and `source`, a file of any size.

Either may come first. The file goes on as it arrives and never stands in memory;
everything else that is held is bounded. Framework-free: chunks in, values out.
werkzeug takes the parts apart; what it thinks of a broken body is said here in our words.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from attrs import define, field
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio import multipart

from controlplane.deploy.inbox import UPLOADED_AT as SOURCE
from controlplane.errors import CorralError, FieldError, MalformedJson, PayloadTooLarge, UnsupportedMediaType
from controlplane.web.request import JSON
from controlplane.wire.wrong import invalid_request, unknown_name

if TYPE_CHECKING:
    from controlplane.deploy.source.uploads import Upload
    from controlplane.web.request import Head

MULTIPART = "multipart/form-data"
SPEC = "spec"
PARTS = (SPEC, SOURCE)
SPEC_MAX_BYTES = 2**20
"""Ten times what arguments and environment may take together."""
PIECE_BYTES = 64 * 1024
"""Taken apart at once, however large a chunk is."""
HELD_MAX_BYTES = PIECE_BYTES + 16 * 1024
"""What may wait for its end: a piece, and the fields of a part before it."""
_BOUNDARY = re.compile(r"[A-Za-z0-9'()+_,./:=? -]{0,69}[A-Za-z0-9'()+_,./:=?-]")
"""RFC 2046, section 5.1.1."""
_PLAIN_ENCODINGS = ("", "binary", "8bit", "7bit")

TakeSpec = Callable[[bytes], None]
Receive = Callable[[AsyncIterable[bytes]], Awaitable["Upload"]]
Events = AsyncGenerator[multipart.Event, None]


def is_multipart(head: Head) -> bool:
    """Whether a request says that it comes in parts."""
    return _media(head.get(b"content-type"))[0] == MULTIPART


def boundary_of(head: Head) -> bytes:
    """What parts the parts.

    Raises:
        UnsupportedMediaType: the request does not say it, or not so that it could be it.
    """
    _, parameters = _media(head.get(b"content-type"))
    boundary = parameters.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise UnsupportedMediaType(f"{MULTIPART} needs a boundary of 1 to 70 characters in the Content-Type header.")
    return boundary.encode("ascii")


async def read_parts(boundary: bytes, chunks: AsyncIterable[bytes], take_spec: TakeSpec, receive: Receive) -> Upload:
    """Read a whole body.

    Args:
        boundary: From `boundary_of`.
        chunks: The body as it arrives.
        take_spec: Gets the part `spec`, as soon as it is there.
        receive: Gets the part `source` as it arrives.

    Raises:
        InvalidRequest: a part is not known, comes twice, or is missing.
        UnsupportedMediaType: a part is of the wrong type.
        PayloadTooLarge: the part `spec` is larger than `SPEC_MAX_BYTES`.
        MalformedJson: the body is cut short or not in parts.
        CorralError: whatever `take_spec` and `receive` raise.
    """
    async with aclosing(_events(boundary, chunks)) as events:
        reader = _Reader(events, take_spec, receive)
        async for event in events:
            if isinstance(event, multipart.Field | multipart.File):
                await reader.take_part(event)
        return reader.finish()


@define
class _Reader:
    events: Events
    take_spec: TakeSpec
    receive: Receive
    _seen: list[str] = field(factory=list, init=False)
    _upload: Upload | None = field(default=None, init=False)

    async def take_part(self, part: multipart.Field | multipart.File) -> None:
        """The part whose head was just read."""
        name = self._check(part)
        if name == SPEC:
            self.take_spec(await self._whole())
            return
        async with aclosing(self._data()) as data:
            self._upload = await self.receive(data)
        if not self._upload.size_bytes:
            raise invalid_request([FieldError(SOURCE, "is empty")])

    def finish(self) -> Upload:
        missing = [FieldError(name, "is required, as a part of the body") for name in PARTS if name not in self._seen]
        if missing:
            raise invalid_request(missing)
        assert self._upload is not None
        return self._upload

    def _check(self, part: multipart.Field | multipart.File) -> str:
        name = part.name or ""
        if name not in PARTS:
            raise invalid_request([FieldError(name[:64], unknown_name("part", name, PARTS))])
        if name in self._seen:
            raise invalid_request([FieldError(name, "comes twice")])
        self._seen.append(name)
        if part.headers.get("content-transfer-encoding", "").lower() not in _PLAIN_ENCODINGS:
            raise UnsupportedMediaType(f"The part `{name}` is encoded: send it as it is.")
        if name == SPEC:
            media, parameters = parse_options_header(part.headers.get("content-type", JSON))
            if media != JSON or parameters.get("charset", "utf-8").lower() not in {"utf-8", "utf8", "us-ascii"}:
                raise UnsupportedMediaType(f"Send the part `{SPEC}` as {JSON}, in UTF-8.")
        return name

    async def _whole(self) -> bytes:
        data = bytearray()
        async with aclosing(self._data()) as pieces:
            async for piece in pieces:
                data += piece
                if len(data) > SPEC_MAX_BYTES:
                    raise PayloadTooLarge(f"The part `{SPEC}` may have at most {SPEC_MAX_BYTES} bytes.")
        return bytes(data)

    async def _data(self) -> AsyncGenerator[bytes, None]:
        """The rest of this part."""
        async for event in self.events:
            assert isinstance(event, multipart.Data)
            if event.data:
                yield event.data
            if not event.more_data:
                return


async def _events(boundary: bytes, chunks: AsyncIterable[bytes]) -> Events:
    decoder = multipart.MultipartDecoder(boundary, HELD_MAX_BYTES)
    async for chunk in chunks:
        for start in range(0, len(chunk), PIECE_BYTES):
            _feed(decoder, chunk[start : start + PIECE_BYTES])
            while not isinstance(event := _next(decoder), multipart.NeedData):
                yield event
    _feed(decoder, None)
    while not isinstance(event := _next(decoder), multipart.Epilogue):
        yield event


def _feed(decoder: multipart.MultipartDecoder, data: bytes | None) -> None:
    try:
        decoder.receive_data(data)
    except RequestEntityTooLarge:
        raise _malformed("the fields of a part, or what stands outside all parts, are too long") from None


def _next(decoder: multipart.MultipartDecoder) -> multipart.Event:
    try:
        return decoder.next_event()
    except CorralError:
        raise
    except ValueError:
        reason = "it is cut short" if decoder.complete else "the fields of a part cannot be read"
        raise _malformed(reason) from None


def _malformed(reason: str) -> MalformedJson:
    return MalformedJson(f"The body is not valid {MULTIPART}: {reason}.")


def _media(value: bytes | None) -> tuple[str, dict[str, str]]:
    media, parameters = parse_options_header((value or b"").decode("latin-1"))
    return media.lower(), parameters

"""A result as a person reads it: texts, facts about images, links, structured content. Pure.

Blocks hold clean lines. What a server calls Markdown, or looks like it, is marked so when it is small enough to lay out.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from attrs import frozen

from controlplane.wire.text import clean, clean_lines
from tui.inspector.jsontext import NotJson, parse, pretty_lines

MAX_BLOCKS = 200
MAX_TEXT_CHARS = 1_100_000
"""Of one block; beyond it a person wants the file."""
MARKDOWN_CHARS = 8_000
MARKDOWN_LINES = 200
MARKDOWN_CELLS = 300
"""Every line and table cell of Markdown becomes a widget, so that large ones would hold up the dashboard."""
MARKDOWN_NESTING = 40
HEADER_BYTES = 64 * 1024
"""Of an image: where its format and its size are told."""

_MARKDOWN = re.compile(r"^(?:#{1,6} \S|```|\s*[-*] \S|\s*\d+\. \S|> )|\*\*\S|\[[^\]\n]+\]\(|^\|.*\|\s*$", re.MULTILINE)

BlockKind = Literal["text", "markdown", "fact", "json"]


@frozen
class Block:
    """One part of a result: a clean heading (empty: none) and clean lines."""

    kind: BlockKind
    title: str
    lines: tuple[str, ...]

    @property
    def source(self) -> str:
        return "\n".join(self.lines)


def blocks_of(result: Any) -> list[Block]:
    """The parts of a result, in order."""
    found: list[Block] = []
    for block in _parts(result):
        if len(found) >= MAX_BLOCKS:
            found.append(Block("fact", "", ("… more parts: see the tree",)))
            break
        found.append(block)
    return found


def text_block(text: str, title: str = "", *, markdown: bool | None = None) -> Block:
    """A text as a block; `markdown` None: by its looks."""
    lines = clean_lines(text[:MAX_TEXT_CHARS]) or [""]
    if len(text) > MAX_TEXT_CHARS:
        lines.append(f"… {len(text) - MAX_TEXT_CHARS} more characters")
    looks = _MARKDOWN.search(text[:MARKDOWN_CHARS]) is not None if markdown is None else markdown
    return Block("markdown" if looks and _can_lay_out(lines) else "text", title, tuple(lines))


def size_text(length: int) -> str:
    """Say how many bytes, in the unit that suits."""
    for unit, factor in (("MB", 1_000_000), ("kB", 1_000)):
        if length >= factor:
            return f"{length / factor:.1f} {unit}"
    return f"{length} B"


def image_facts(data: bytes) -> tuple[str, tuple[int, int] | None]:
    """The format of an image by its first bytes, and its width and height in pixels where they are told."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        return "PNG", struct.unpack(">II", data[16:24])
    if data[:6] in (b"GIF87a", b"GIF89a") and len(data) >= 10:
        return "GIF", struct.unpack("<HH", data[6:10])
    if data.startswith(b"\xff\xd8"):
        return "JPEG", _jpeg_size(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP", _webp_size(data)
    return "unknown format", None


def _parts(result: Any) -> Iterator[Block]:
    if not isinstance(result, dict):
        yield Block("json", "", pretty_lines(result))
        return
    known = [name for name in ("content", "messages", "contents") if isinstance(result.get(name), list)]
    for name in known:
        for item in result[name]:
            yield from _item(item)
    if "structuredContent" in result and not _is_said(result):
        yield Block("json", "structured content", pretty_lines(result["structuredContent"]))
    if not known and "structuredContent" not in result:
        rest = {name: value for name, value in result.items() if name not in ("_meta", "resultType")}
        yield Block("json", "", pretty_lines(rest))


def _is_said(result: Mapping[str, Any]) -> bool:
    """Whether the structured content is the one text over again, as the protocol wants it for older clients."""
    content = result.get("content")
    if not isinstance(content, list) or len(content) != 1 or not isinstance(content[0], dict):
        return False
    try:
        return bool(parse(str(content[0].get("text", ""))) == result["structuredContent"])
    except (NotJson, RecursionError):
        return False


def _item(item: Any) -> Iterator[Block]:
    if not isinstance(item, dict):
        yield Block("json", "", pretty_lines(item))
    elif "role" in item:
        inner = item.get("content")
        yield Block("fact", "", (f"{clean(item['role'])[:40]} says",))
        for one in inner if isinstance(inner, list) else [inner]:
            yield from _item(one) if not (isinstance(one, dict) and "role" in one) else ()
    elif isinstance(item.get("resource"), dict):
        yield from _item(item["resource"])
    elif isinstance(item.get("text"), str):
        yield _text(item)
    elif isinstance(item.get("data"), str) or isinstance(item.get("blob"), str):
        yield _binary(item)
    elif item.get("type") == "resource_link":
        yield Block(
            "fact", "link", (clean(f"{item.get('uri', '')}"), *_said(item, "name", "title", "description", "mimeType"))
        )
    else:
        yield Block("json", _one(item, "type"), pretty_lines(item))


def _text(item: Mapping[str, Any]) -> Block:
    mime = _one(item, "mimeType")
    text = item["text"]
    if "json" in mime or text[:1] in "{[":
        try:
            return Block("json", _one(item, "uri"), pretty_lines(parse(text[:MAX_TEXT_CHARS])))
        except NotJson:
            pass
    return text_block(text, _one(item, "uri"), markdown=True if mime == "text/markdown" else None)


def _binary(item: Mapping[str, Any]) -> Block:
    encoded = item["data"] if isinstance(item.get("data"), str) else item["blob"]
    mime, head = _one(item, "mimeType"), _decoded(encoded)
    length = size_text(len(encoded) * 3 // 4 - encoded[-2:].count("="))
    if item.get("type") == "image" or mime.startswith("image/"):
        kind, pixels = image_facts(head)
        dimensions = f"{pixels[0]} × {pixels[1]} pixels" if pixels else "dimensions unknown"
        return Block("fact", "image", (f"{kind}, {dimensions}, {length}, sent as {mime or 'no type'}",))
    what = "audio" if item.get("type") == "audio" or mime.startswith("audio/") else "data"
    return Block("fact", what, (f"{mime or 'no type'}, {length}", *_said(item, "uri")))


def _decoded(encoded: str) -> bytes:
    """The first bytes of Base64; none where it is none."""
    try:
        return base64.b64decode(encoded[: HEADER_BYTES // 3 * 4], validate=False)
    except (binascii.Error, ValueError):
        return b""


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """From the frame header, after the segments before it."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + max(length, 2)
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 30:
        return None
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", data[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _can_lay_out(lines: list[str]) -> bool:
    text_chars = sum(len(line) + 1 for line in lines)
    deepest = max((len(line) - len(line.lstrip(" >-*")) for line in lines), default=0)
    cells = sum(line.count("|") for line in lines)
    return (
        text_chars <= MARKDOWN_CHARS
        and len(lines) <= MARKDOWN_LINES
        and cells <= MARKDOWN_CELLS
        and deepest <= MARKDOWN_NESTING
    )


def _said(item: Mapping[str, Any], *names: str) -> tuple[str, ...]:
    return tuple(f"{name}: {_one(item, name)}" for name in names if _one(item, name))


def _one(item: Mapping[str, Any], name: str) -> str:
    value = item.get(name)
    return clean(value[:500]) if isinstance(value, str) else ""

"""What an archive holds, whichever kind it is of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from attrs import field, frozen

if TYPE_CHECKING:
    from controlplane.deploy.source.names import Kind
    from controlplane.deploy.source.spending import Spending

READ_BYTES = 64 * 1024
"""One read of the archive; what a decompressor gives for it comes in bounded pieces."""


@frozen(kw_only=True)
class Entry:
    """One entry. Nothing about it has been checked but that it is a file, a folder or a symbolic link."""

    name: str
    kind: Kind
    size: int = 0
    """Of a file, as the archive says."""
    is_executable: bool = False
    target: str = ""
    """Of a link."""
    contents: Iterator[bytes] = field(factory=lambda: iter(()), eq=False, repr=False)
    """Of a file, `size` bytes exactly or it raises; to be read before the next entry is asked for, or not at all."""


def read_range(file: BinaryIO, start: int, size: int, spending: Spending) -> Iterator[bytes]:
    """A part of the archive, piece by piece; less of it where the file ends."""
    while size > 0:
        spending.check()
        piece = os.pread(file.fileno(), min(size, READ_BYTES), start)
        if not piece:
            return
        yield piece
        start += len(piece)
        size -= len(piece)

"""How much an archive may cost, and what it has cost so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from attrs import define, field, frozen

from controlplane.deploy.source.names import MAX_NODES
from controlplane.deploy.source.refusal import Refused

MIB = 2**20
BLOCK_BYTES = 4096
"""What the smallest folder, and the smallest contents of a file, take on most file systems."""
INODE_BYTES = 512
"""What a file or a link takes beside its contents."""
HINT = "Leave out what is not source: data, models, build results, node_modules."


@frozen(kw_only=True)
class UnpackLimits:
    """What one archive may unpack to."""

    entries: int = MAX_NODES
    """Entries, and files, links and folders that come of them."""
    links: int = 10_000
    """Symbolic links; they are kept in memory until everything else is written."""
    total_bytes: int = 512 * MIB
    """On disk, each file and folder rounded up to a block."""
    file_bytes: int = 256 * MIB
    """One file: weights and dumps do not belong in a source."""
    ratio: int = 100
    """Unpacked bytes for each packed one. Source text has 3 to 10, logs up to 50, the bombs 1,000."""
    ratio_floor_bytes: int = 64 * MIB
    """Up to here any ratio may be: a test's file of zeros is no bomb."""
    seconds: float = 35.0
    """From the first byte to the last, read twice. 100 MiB of xz or bzip2 take 20 to 30, of gzip 4, of zstd 2."""


class Abandoned(Exception):
    """Unpacking was given up because its caller no longer wants it."""


@define
class Spending:
    """What has been spent of the limits.

    Args:
        limits: The limits.
        packed_bytes: Size of the archive itself.
        cancelled: Asked often; True gives up.
        deadline: On the monotonic clock.
    """

    limits: UnpackLimits
    packed_bytes: int
    cancelled: Callable[[], bool]
    deadline: float
    entries: int = field(default=0, init=False)
    content_bytes: int = field(default=0, init=False)
    disk_bytes: int = field(default=0, init=False)
    _expanded_bytes: int = field(default=0, init=False)

    @property
    def content_limit_bytes(self) -> int:
        """All contents together, by the archive's own size."""
        by_ratio = max(self.limits.ratio_floor_bytes, self.limits.ratio * self.packed_bytes)
        return min(self.limits.total_bytes, by_ratio)

    def check(self) -> None:
        """Give up if it is time to.

        Raises:
            Abandoned: the caller asked.
            Refused: it takes too long.
        """
        if self.cancelled():
            raise Abandoned
        if time.monotonic() > self.deadline:
            raise Refused(
                f"unpacking takes longer than {self.limits.seconds:g} s",
                hint="Leave out what is not source, or pack it with gzip or zstd, which unpack ten times as fast.",
            )

    def entry(self, name: str | bytes) -> None:
        """One more entry, of whatever kind."""
        self.check()
        self.entries += 1
        if self.entries > self.limits.entries:
            raise Refused(f"is one too many: an archive has at most {self.limits.entries:,} entries", entry=name)

    def content(self, name: str, size: int) -> None:
        """A file is about to be written that says that it has `size` bytes."""
        if size > self.limits.file_bytes:
            raise Refused(f"has {size:,} bytes; a file has at most {self.limits.file_bytes:,}", entry=name, hint=HINT)
        self.content_bytes += size
        if self.content_bytes > self.content_limit_bytes:
            raise Refused(f"is too much: {self.allowance()}", entry=name, hint=HINT)
        self._disk(name, -(-size // BLOCK_BYTES) * BLOCK_BYTES)

    def made(self, name: str, folders: int, others: int) -> None:
        """So many folders, and files and links, are about to be made on account of an entry."""
        self._disk(name, folders * BLOCK_BYTES + others * INODE_BYTES)

    def _disk(self, name: str, size: int) -> None:
        self.disk_bytes += size
        if self.disk_bytes > self.limits.total_bytes:
            raise Refused(f"is too much: {self.allowance()}", entry=name, hint=HINT)

    def allowance(self) -> str:
        return (
            f"{self.packed_bytes:,} packed bytes may unpack to {self.content_limit_bytes:,}, "
            f"and to {self.limits.total_bytes:,} on disk"
        )

    def metered(self, expanded: Iterator[bytes]) -> Iterator[bytes]:
        """Pass on what a compressed tar expands to, headers and padding and all, and keep it within bounds."""
        limit = 2 * self.limits.total_bytes  # beside contents on disk, headers: 1.5 KiB for each 4 KiB at most
        for chunk in expanded:
            self.check()
            self._expanded_bytes += len(chunk)
            if self._expanded_bytes > limit:
                raise Refused(f"the archive expands to more than {limit:,} bytes", hint=HINT)
            yield chunk

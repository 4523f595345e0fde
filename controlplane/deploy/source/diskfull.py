"""A full disk, in Corral's own words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from controlplane.errors import Overloaded

RETRY_AFTER_S = 60.0
"""Space comes back when an operator makes some, or when what is unused is collected."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def full_is_overloaded() -> Iterator[None]:
    """Around what writes to the data folder.

    Raises:
        Overloaded: the disk, or the user's share of it, is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise Overloaded(
            "The data folder's disk is full.",
            hint="Remove instances or caches that are not needed, or ask the operator for more space.",
            retry_after_s=RETRY_AFTER_S,
        ) from None

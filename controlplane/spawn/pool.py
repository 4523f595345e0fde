"""Which user ids are Corral's to give away: one per instance, when Corral is root.

Above what distributions give to ordinary accounts (up to 60000), below what
systemd hands out to services by itself (from 61184). Standard library only: the
spawner asks before it kills everything that runs as a user.
"""

from __future__ import annotations

FIRST_UID = 60000
LAST_UID = 61183


def is_pooled(uid: int | None) -> bool:
    """Whether every process of that user is one of Corral's."""
    return uid is not None and FIRST_UID <= uid <= LAST_UID

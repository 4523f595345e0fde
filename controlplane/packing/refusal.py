"""Why something cannot be sent."""

from __future__ import annotations


class Unusable(ValueError):
    """It cannot be packed or read; the message says why, for the person who named it."""


class NotThere(Unusable):
    """It is no folder, file or address."""

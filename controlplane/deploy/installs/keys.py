"""Names of installs: whose they are, and a digest of everything that went into them. Pure."""

from __future__ import annotations

import hashlib
import re

from attrs import field, frozen
from attrs import validators as v

SHARED = "shared"
"""The scope of what any owner may use: installed from a registry, without a word of any owner's in it."""
_SCOPE = re.compile(r"shared|[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@frozen(order=True)
class InstallKey:
    """`shared/<digest>` or `<scope of an owner>/<digest>`; both parts are safe as names of folders."""

    scope: str = field(validator=v.matches_re(_SCOPE))
    digest: str = field(validator=v.matches_re(_DIGEST))

    def __str__(self) -> str:
        return f"{self.scope}/{self.digest}"

    @staticmethod
    def is_one(scope: str, digest: str) -> bool:
        return bool(_SCOPE.fullmatch(scope) and _DIGEST.fullmatch(digest))

    @classmethod
    def parse(cls, text: str) -> InstallKey:
        """Read what `str` wrote.

        Raises:
            ValueError: it is no key.
        """
        scope, _, digest = text.partition("/")
        return cls(scope, digest)


def key_of(scope: str, *parts: str | bytes) -> InstallKey:
    """The key of what these parts determine; no two lists of parts have the same one."""
    return InstallKey(scope, _digest(*parts))


def scope_of(owner: str) -> str:
    """The scope of an owner's own installs."""
    return _digest("owner", owner)[:32]


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        raw = part if isinstance(part, bytes) else part.encode("utf-8", "surrogateescape")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()

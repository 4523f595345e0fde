"""The public keys of an issuer, read from its JWKS document (RFC 7517). Pure.

What cannot be used here is left out, not refused: an issuer publishes keys for
others, too. A key is held with the algorithms that fit it, so that what a
token's header says chooses neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from attrs import field, frozen
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

from controlplane.core.rawjson import UNDECODABLE

if TYPE_CHECKING:
    from collections.abc import Callable

DOCUMENT_MAX_BYTES = 256 * 1024
"""Of a JWKS document, or of an issuer's metadata."""
KEYS_MAX = 64
"""Issuers publish two or three; beyond this the document is somebody's mistake."""
KID_MAX_CHARS = 256
RSA_MIN_BITS, RSA_MAX_BITS = 2_048, 8_192
"""Less is not safe (RFC 7518 section 3.3); more costs whoever verifies too much."""

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


class BadKeys(ValueError):
    """The document is none that keys can be read from; the text says why."""


@frozen
class Key:
    """One of them. `id` is a digest of ours, the same for the same key; `algorithms` are those it may be used with."""

    id: str
    algorithms: tuple[str, ...]
    public: PublicKey = field(repr=False, eq=False)


@frozen
class KeySet:
    """All of them by their `kid`; those without one are only of use while there is just one."""

    by_kid: Mapping[str, Key] = field(factory=dict)
    nameless: tuple[Key, ...] = ()

    def __len__(self) -> int:
        return len(self.by_kid) + len(self.nameless)

    def find(self, kid: str | None) -> Key | None:
        """The key that a token names; without a name the only one that there is."""
        if kid is not None:
            return self.by_kid.get(kid)
        every = (*self.by_kid.values(), *self.nameless)
        return every[0] if len(every) == 1 else None

    def ids(self) -> frozenset[str]:
        return frozenset(key.id for key in (*self.by_kid.values(), *self.nameless))


class _Document(msgspec.Struct):
    keys: list[dict[str, Any]]


def read_keys(document: bytes, allowed: Collection[str]) -> KeySet:
    """Read a JWKS document.

    Args:
        document: JSON, as fetched.
        allowed: Names of the algorithms that are accepted at all.

    Raises:
        BadKeys: it is no JWKS document, too large, or holds no key that can be used.
    """
    if len(document) > DOCUMENT_MAX_BYTES:
        raise BadKeys(f"the document is larger than {DOCUMENT_MAX_BYTES // 1024} KiB")
    try:
        members = msgspec.json.decode(document, type=_Document).keys
    except UNDECODABLE:
        raise BadKeys("the document is no JWKS") from None
    if len(members) > KEYS_MAX:
        raise BadKeys(f"the document has {len(members)} keys, more than {KEYS_MAX}")
    by_kid: dict[str, Key] = {}
    nameless: list[Key] = []
    for member in members:
        key, kid = _key(member, allowed), member.get("kid")
        if key is None:
            continue
        if kid is None:
            nameless.append(key)
        elif isinstance(kid, str) and len(kid) <= KID_MAX_CHARS:
            by_kid.setdefault(kid, key)
    keys = KeySet(by_kid, tuple(nameless))
    if not keys:
        raise BadKeys(f"none of its {len(members)} keys is for signatures by {', '.join(allowed)}")
    return keys


def _key(member: Mapping[str, Any], allowed: Collection[str]) -> Key | None:
    """One key, if it is a public one that signatures of an allowed algorithm are verified with."""
    if "d" in member or member.get("use", "sig") != "sig" or "verify" not in _operations(member):
        return None
    public = _public(member)
    if public is None:
        return None
    fitting = tuple(name for name in _fitting(public) if name in allowed and member.get("alg", name) == name)
    return Key(_digest(public), fitting, public) if fitting else None


def _operations(member: Mapping[str, Any]) -> Collection[Any]:
    operations = member.get("key_ops", ["verify"])
    return operations if isinstance(operations, list) else ()


def _public(member: Mapping[str, Any]) -> PublicKey | None:
    readers: dict[Any, Callable[[Any], Any]] = {
        "RSA": RSAAlgorithm.from_jwk,
        "EC": ECAlgorithm.from_jwk,
        "OKP": OKPAlgorithm.from_jwk,
    }
    kind = member.get("kty")
    read = readers.get(kind) if isinstance(kind, str) else None
    if read is None:
        return None
    try:
        key = read(dict(member))
    except (PyJWTError, ValueError, TypeError, KeyError, AttributeError):  # whatever its members are
        return None
    return key if isinstance(key, PublicKey) else None


def _fitting(public: PublicKey) -> tuple[str, ...]:
    """The algorithms that a key is made for."""
    match public:
        case RSAPublicKey():
            return _RSA if RSA_MIN_BITS <= public.key_size <= RSA_MAX_BITS else ()
        case EllipticCurvePublicKey():
            name = _CURVES.get(public.curve.name)
            return (name,) if name is not None else ()
    return ("EdDSA",)


def _digest(public: PublicKey) -> str:
    """Of the key alone, whatever is said about it."""
    return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()[:16]

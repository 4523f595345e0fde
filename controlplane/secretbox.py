"""Encryption of secrets at rest, and the JWT key: both derived from the one `SECRET_KEY`.

Each use has its own HKDF label, so no key tells anything of another. A box is
`version(1) | key id(8) | nonce(12) | AES-256-GCM ciphertext and tag`; the key
id is derived as well, so it is no fingerprint of the secret that could be searched
for. Owns no key file: `home.py` keeps it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from attrs import define, field, frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VERSION = 1
KEY_BYTES = 32
KEY_ID_BYTES = 8
NONCE_BYTES = 12
"""What AES-GCM wants (NIST SP 800-38D, 8.2); random, safe for 2**32 boxes per key."""
HEADER_BYTES = 1 + KEY_ID_BYTES + NONCE_BYTES
ENV_LABEL = b"corral/v1/env-encryption"
KEY_ID_LABEL = b"corral/v1/env-encryption/key-id"
PEER_LABEL = b"corral/v1/peer"
JWT_LABELS = {
    "HS256": (b"corral/v1/jwt", 32),
    "HS384": (b"corral/v1/jwt/HS384", 48),
    "HS512": (b"corral/v1/jwt/HS512", 64),
}
"""Label and bytes: a key has at least the length of the hash (RFC 7518, 3.2). HS256's label came first and is kept."""


class SecretUnreadable(Exception):
    """A box cannot be opened: another key closed it, or it was changed. Names key ids, never keys."""

    @classmethod
    def of_key(cls, box_id: str, key_id: str) -> SecretUnreadable:
        """It was closed with the key `box_id`, which is not at hand; `key_id` is in use."""
        return cls(
            f"an encrypted value was written with key {box_id}, and the key in use is {key_id}: "
            "restore the SECRET_KEY (or the key file in CORRAL_HOME) that this database was used with; "
            "if it was replaced, SECRET_KEY_PREVIOUS takes the old one"
        )


def _derive(secret: bytes, label: bytes, length: int = KEY_BYTES) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=label).derive(secret)


@frozen
class _Key:
    id: bytes
    cipher: AESGCM = field(repr=False)

    @classmethod
    def derived_from(cls, secret: bytes) -> _Key:
        return cls(_derive(secret, KEY_ID_LABEL, KEY_ID_BYTES), AESGCM(_derive(secret, ENV_LABEL)))


def _bytes(secret: str | bytes) -> bytes:
    return secret.encode() if isinstance(secret, str) else secret


@define(init=False, eq=False)
class SecretBox:
    """Closes boxes with the current key; opens those of earlier keys as well."""

    _keys: dict[bytes, _Key] = field(repr=False)
    _current: _Key = field(repr=False)
    _secret: bytes = field(repr=False)

    def __init__(self, secret_key: str | bytes, previous: Sequence[str | bytes] = ()) -> None:
        """Derive the keys.

        Args:
            secret_key: The root secret, 32 bytes or more.
            previous: Earlier root secrets, whose boxes can still be opened.
        """
        self._secret = _bytes(secret_key)
        self._current = _Key.derived_from(self._secret)
        older = [_Key.derived_from(_bytes(secret)) for secret in previous]
        self._keys = {key.id: key for key in (*older, self._current)}

    def jwt_key(self, algorithm: str) -> bytes:
        """The key for signing and verifying JWTs with one of `config.JWT_ALGORITHMS`, as long as that asks for."""
        label, length = JWT_LABELS[algorithm]
        return _derive(self._secret, label, length)

    def peer_key(self) -> str:
        """What control planes on the same database know each other by; hex."""
        return _derive(self._secret, PEER_LABEL).hex()

    @property
    def key_id(self) -> str:
        """The current key's id, in hex; no secret."""
        return self._current.id.hex()

    @property
    def previous_key_ids(self) -> tuple[str, ...]:
        """Those of the keys that only open."""
        return tuple(key.hex() for key in self._keys if key != self._current.id)

    def knows(self, key_id: bytes) -> bool:
        """Whether the key of this id is at hand."""
        return key_id in self._keys

    def turn_to(self, secret_key: str | bytes) -> None:
        """Close with another key from now on; what the keys before have closed still opens."""
        self._secret = _bytes(secret_key)
        self._current = _Key.derived_from(self._secret)
        self._keys[self._current.id] = self._current

    def forget_previous(self) -> None:
        """Open with the current key only; the caller has seen that nothing is left of any other."""
        self._keys = {self._current.id: self._current}

    def encrypt(self, plaintext: bytes, aad: bytes) -> bytes:
        """Close a box that opens only with the same `aad`."""
        header = bytes([VERSION]) + self._current.id + secrets.token_bytes(NONCE_BYTES)
        nonce = header[-NONCE_BYTES:]
        return header + self._current.cipher.encrypt(nonce, plaintext, header + aad)

    def decrypt(self, box: bytes, aad: bytes) -> bytes:
        """Open a box.

        Raises:
            SecretUnreadable: another key closed it, it belongs elsewhere, or it was changed.
        """
        header, ciphertext = box[:HEADER_BYTES], box[HEADER_BYTES:]
        if len(header) < HEADER_BYTES or header[0] != VERSION:
            raise SecretUnreadable(
                "an encrypted value has an unknown format: it was damaged, or a later version wrote it"
            )
        key = self._keys.get(header[1 : 1 + KEY_ID_BYTES])
        if key is None:
            raise SecretUnreadable.of_key(header[1 : 1 + KEY_ID_BYTES].hex(), self.key_id)
        try:
            return key.cipher.decrypt(header[-NONCE_BYTES:], ciphertext, header + aad)
        except InvalidTag:
            raise SecretUnreadable(
                f"an encrypted value of key {key.id.hex()} does not fit its place: the row was changed outside Corral"
            ) from None

"""Encryption at rest: what opens, and what must not."""

from __future__ import annotations

import jwt
import pytest

from controlplane.config import JWT_ALGORITHMS
from controlplane.secretbox import HEADER_BYTES, SecretBox, SecretUnreadable

SECRET = "a secret key of thirty-two bytes or more"
OTHER = "another secret key of thirty-two bytes"


def test_a_box_opens_with_its_key_and_its_place() -> None:
    box = SecretBox(SECRET)
    sealed = box.encrypt(b"value", b"place")
    assert box.decrypt(sealed, b"place") == b"value"
    assert SecretBox(SECRET.encode()).decrypt(sealed, b"place") == b"value"
    assert b"value" not in sealed


def test_the_same_value_never_looks_the_same() -> None:
    box = SecretBox(SECRET)
    assert len({box.encrypt(b"value", b"") for _ in range(100)}) == 100


def test_a_box_does_not_open_elsewhere() -> None:
    box = SecretBox(SECRET)
    with pytest.raises(SecretUnreadable, match=f"key {box.key_id} does not fit its place"):
        box.decrypt(box.encrypt(b"value", b"place"), b"another place")


def test_a_changed_box_does_not_open_whichever_byte_it_is() -> None:
    box = SecretBox(SECRET)
    sealed = box.encrypt(b"value", b"place")
    for index in range(len(sealed)):
        changed = bytearray(sealed)
        changed[index] ^= 1
        with pytest.raises(SecretUnreadable):
            box.decrypt(bytes(changed), b"place")


@pytest.mark.parametrize("length", [0, 1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 3])
def test_a_box_that_was_cut_off_does_not_open(length: int) -> None:
    box = SecretBox(SECRET)
    with pytest.raises(SecretUnreadable):
        box.decrypt(box.encrypt(b"value", b"place")[:length], b"place")


def test_a_box_of_another_key_names_both_keys_and_neither_secret() -> None:
    box, other = SecretBox(SECRET), SecretBox(OTHER)
    with pytest.raises(SecretUnreadable) as caught:
        other.decrypt(box.encrypt(b"value", b"place"), b"place")
    message = str(caught.value)
    assert box.key_id in message
    assert other.key_id in message
    assert "SECRET_KEY" in message
    assert SECRET not in message
    assert OTHER not in message


def test_after_a_rotation_old_boxes_open_and_new_ones_are_of_the_new_key() -> None:
    old, new = SecretBox(SECRET), SecretBox(OTHER, previous=[SECRET])
    assert new.decrypt(old.encrypt(b"value", b"place"), b"place") == b"value"
    assert new.key_id != old.key_id
    assert SecretBox(OTHER).decrypt(new.encrypt(b"value", b"place"), b"place") == b"value"


def test_each_use_has_a_key_of_its_own() -> None:
    box = SecretBox(SECRET)
    key = box.jwt_key("HS256")
    assert bytes.fromhex(box.key_id) not in key
    assert key == SecretBox(SECRET).jwt_key("HS256") != SecretBox(OTHER).jwt_key("HS256")
    assert key not in box.encrypt(b"", b"")


def test_the_jwt_key_of_the_usual_algorithm_never_changes() -> None:
    expected = "996d054950eef25df301f3d872b2f365d239203451e4610972e5727a47a4bdc3"
    assert SecretBox(SECRET).jwt_key("HS256").hex() == expected


@pytest.mark.filterwarnings("error")
def test_every_jwt_algorithm_has_a_key_of_its_own_that_is_long_enough() -> None:
    keys = {name: SecretBox(SECRET).jwt_key(name) for name in JWT_ALGORITHMS}

    assert {name: len(key) * 8 for name, key in keys.items()} == {"HS256": 256, "HS384": 384, "HS512": 512}
    assert len({key[:32] for key in keys.values()}) == len(keys)
    for name, key in keys.items():
        assert jwt.decode(jwt.encode({"sub": "ada"}, key, name), key, algorithms=[name]) == {"sub": "ada"}


def test_no_key_is_in_the_printed_form() -> None:
    box = SecretBox(SECRET)
    assert repr(box) == "SecretBox()"
    assert SECRET not in repr(vars(type(box)))


def test_a_box_turns_to_another_key_and_keeps_the_one_before_until_it_is_forgotten() -> None:
    box = SecretBox("first" * 8)
    before, first = box.encrypt(b"value", b"row"), box.key_id
    box.turn_to("second" * 8)

    assert box.key_id != first
    assert box.previous_key_ids == (first,)
    assert box.decrypt(before, b"row") == b"value"
    assert SecretBox("second" * 8).decrypt(box.encrypt(b"more", b"row"), b"row") == b"more"
    assert box.jwt_key("HS256") == SecretBox("second" * 8).jwt_key("HS256")

    assert box.knows(bytes.fromhex(first))
    box.forget_previous()
    assert not box.knows(bytes.fromhex(first))
    assert box.previous_key_ids == ()
    with pytest.raises(SecretUnreadable, match=first):
        box.decrypt(before, b"row")

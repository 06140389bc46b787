"""Epochs and materials: when wraps get another derived key, and which secrets open what."""

import dataclasses
import os
from collections.abc import Callable

import pytest

from kpcache.core import envelope
from kpcache.errors import InvalidCiphertextException
from kpcache.keyring import Keyring, changes, crypto
from tests.keyrings import ALIAS, keyring_of, record


class Clock:
    """Monotonic seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def wrap(ring: Keyring, plaintext: bytes = b"private") -> bytes:
    return ring.encrypt(ring.resolve(ALIAS), plaintext, {}).blob


def test_salt_and_nonces_are_the_kernels_bytes() -> None:
    drawn: list[bytes] = []

    def urandom(size: int) -> bytes:
        drawn.append(os.urandom(size))
        return drawn[-1]

    ring = keyring_of(record(), urandom=urandom)
    blobs = [envelope.parse(wrap(ring)) for _ in range(3)]
    assert [blobs[0].salt, *(blob.nonce for blob in blobs)] == drawn


def epochs_of(ring: Keyring, between: Callable[[], None], wraps: int) -> int:
    """How many salts so many wraps use."""
    salts = set()
    for _ in range(wraps):
        salts.add(envelope.parse(wrap(ring)).salt)
        between()
    return len(salts)


def test_an_epoch_lasts_an_hour() -> None:
    clock = Clock()
    ring = keyring_of(record(), clock=clock)

    def pass_a_quarter() -> None:
        clock.now += 900.0

    assert epochs_of(ring, pass_a_quarter, 4) == 1
    assert epochs_of(ring, pass_a_quarter, 8) == 2


def test_an_epoch_ends_after_its_number_of_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert crypto.EPOCH_WRAPS == 2**32
    monkeypatch.setattr(crypto, "EPOCH_WRAPS", 5)
    assert epochs_of(keyring_of(record()), lambda: None, 15) == 3


def test_an_epoch_ends_when_told_and_with_the_process() -> None:
    only = record()
    ring = keyring_of(only)
    assert epochs_of(ring, ring.new_epoch, 3) == 3
    assert epochs_of(ring, lambda: None, 3) == 1
    blobs = [wrap(keyring_of(only)) for _ in range(2)]
    assert len({envelope.parse(blob).salt for blob in blobs}) == 2
    assert [ring.decrypt(blob, {}).plaintext for blob in blobs] == [b"private"] * 2


def test_the_last_material_wraps_and_all_of_them_open() -> None:
    rotated = record(materials=3)
    before = keyring_of(dataclasses.replace(rotated, materials=rotated.materials[:1]))
    after = keyring_of(rotated)
    old = wrap(before, b"old")
    new = wrap(after, b"new")
    assert after.decrypt(old, {}).plaintext == b"old"
    assert after.decrypt(old, {}).material_id == rotated.materials[0].material_id
    assert after.decrypt(new, {}).material_id == rotated.materials[2].material_id
    assert after.describe(after.resolve(ALIAS))["CurrentKeyMaterialId"] == rotated.materials[2].material_id
    with pytest.raises(InvalidCiphertextException):
        before.decrypt(new, {})


def test_a_rotation_comes_into_force_with_the_next_wrap_and_ends_no_other_keys_epoch() -> None:
    rotated, other = record(), record()
    ring = keyring_of(rotated, other)
    old, beside = wrap(ring), ring.encrypt(ring.resolve(other.key_id), b"private", {}).blob
    key = ring.resolve(ALIAS)  # as a request does that then waits for its pair
    ring.adopt(changes.rotate(ring.content, ALIAS, 1.0, os.urandom))
    wrapped = ring.encrypt(key, b"private", {})
    current = ring.content.keys[0].materials[-1].material_id
    assert wrapped.material_id == current == envelope.parse(wrapped.blob).material_id.hex()
    assert envelope.parse(old).material_id.hex() != current
    assert ring.decrypt(old, {}).plaintext == ring.decrypt(wrapped.blob, {}).plaintext == b"private"
    again = ring.encrypt(ring.resolve(other.key_id), b"private", {}).blob
    assert envelope.parse(again).salt == envelope.parse(beside).salt
    assert envelope.parse(wrapped.blob).salt != envelope.parse(old).salt


def test_a_keyring_restored_from_an_old_copy_repeats_nothing() -> None:
    """The copy and what went on after it was taken: the same secrets, never the same key and nonce."""
    only = record()
    went_on, restored = keyring_of(only), keyring_of(only)
    blobs = [envelope.parse(wrap(ring)) for ring in (went_on, restored) for _ in range(100)]
    assert len({blob.salt for blob in blobs}) == 2
    assert len({blob.commitment for blob in blobs}) == 2
    assert len({(blob.salt, blob.nonce) for blob in blobs}) == len(blobs)
    assert len({blob.ciphertext for blob in blobs}) == len(blobs)

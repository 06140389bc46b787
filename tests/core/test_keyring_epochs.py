"""Epochs and materials: when wraps get another derived key, and which secrets open what."""

import os
import uuid
from collections.abc import Callable

import pytest

from kpcache.core import envelope
from kpcache.errors import InvalidCiphertextException
from kpcache.keyring import Keyring, crypto
from kpcache.keyring.document import Document, KeyRecord, Material

ALIAS = "alias/kpcache"


class Clock:
    """Monotonic seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def record(materials: int = 1) -> KeyRecord:
    key_id = str(uuid.UUID(bytes=os.urandom(16), version=4))
    secrets = [os.urandom(32) for _ in range(materials)]
    made = tuple(Material(crypto.material_id(secret, key_id), 0.0, secret) for secret in secrets)
    return KeyRecord(key_id, "Enabled", 0.0, None, "", made)


def keyring(
    only: KeyRecord, clock: Clock | None = None, urandom: Callable[[int], bytes] = os.urandom
) -> Keyring:
    return Keyring(Document((only,), {ALIAS: only.key_id}), clock or Clock(), urandom)


def test_salt_and_nonces_are_the_kernels_bytes() -> None:
    drawn: list[bytes] = []

    def urandom(size: int) -> bytes:
        drawn.append(os.urandom(size))
        return drawn[-1]

    ring = keyring(record(), urandom=urandom)
    blobs = [envelope.parse(ring.encrypt(ring.resolve(ALIAS), b"private", {})) for _ in range(3)]
    assert [blobs[0].salt, *(blob.nonce for blob in blobs)] == drawn


def epochs_of(ring: Keyring, between: Callable[[], None], wraps: int) -> int:
    """How many salts so many wraps use."""
    salts = set()
    for _ in range(wraps):
        salts.add(envelope.parse(ring.encrypt(ring.resolve(ALIAS), b"private", {})).salt)
        between()
    return len(salts)


def test_an_epoch_lasts_an_hour() -> None:
    clock = Clock()
    ring = keyring(record(), clock=clock)

    def pass_a_quarter() -> None:
        clock.now += 900.0

    assert epochs_of(ring, pass_a_quarter, 4) == 1
    assert epochs_of(ring, pass_a_quarter, 8) == 2


def test_an_epoch_ends_after_its_number_of_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert crypto.EPOCH_WRAPS == 2**32
    monkeypatch.setattr(crypto, "EPOCH_WRAPS", 5)
    assert epochs_of(keyring(record()), lambda: None, 15) == 3


def test_an_epoch_ends_when_told_and_with_the_process() -> None:
    only = record()
    ring = keyring(only)
    assert epochs_of(ring, ring.new_epoch, 3) == 3
    assert epochs_of(ring, lambda: None, 3) == 1
    blobs = [keyring(only).encrypt(ring.resolve(ALIAS), b"private", {}) for _ in range(2)]
    assert len({envelope.parse(blob).salt for blob in blobs}) == 2
    assert [ring.decrypt(blob, {}).plaintext for blob in blobs] == [b"private"] * 2


def test_the_last_material_wraps_and_all_of_them_open() -> None:
    rotated = record(materials=3)
    before = keyring(KeyRecord(rotated.key_id, "Enabled", 0.0, None, "", rotated.materials[:1]))
    after = keyring(rotated)
    old = before.encrypt(before.resolve(ALIAS), b"old", {})
    new = after.encrypt(after.resolve(ALIAS), b"new", {})
    assert after.decrypt(old, {}).plaintext == b"old"
    assert after.decrypt(old, {}).material_id == rotated.materials[0].material_id
    assert (
        after.decrypt(new, {}).material_id
        == after.resolve(ALIAS).material_id
        == rotated.materials[2].material_id
    )
    with pytest.raises(InvalidCiphertextException):
        before.decrypt(new, {})

"""Keyrings made up in memory, for tests of what is done with them: no file, own randomness."""

import os
import uuid
from collections.abc import Callable

from kpcache.keyring import Keyring, crypto
from kpcache.keyring.document import Document, KeyRecord, Material

ALIAS = "alias/kpcache"


def record(materials: int = 1, state: str = "Enabled", deletion_s: float | None = None) -> KeyRecord:
    """A key of random id and materials."""
    key_id = str(uuid.UUID(bytes=os.urandom(16), version=4))
    secrets = [os.urandom(32) for _ in range(materials)]
    made = tuple(Material(crypto.material_id(secret, key_id), 0.0, secret) for secret in secrets)
    return KeyRecord(key_id, state, 0.0, deletion_s, "", {}, made)


def document_of(*records: KeyRecord) -> Document:
    """The first record is what the one alias names."""
    return Document(records, {ALIAS: records[0].key_id}, revision=1, exported_revision=0)


def keyring_of(
    *records: KeyRecord,
    clock: Callable[[], float] = lambda: 0.0,
    urandom: Callable[[int], bytes] = os.urandom,
) -> Keyring:
    """A keyring of these keys, as ``document_of`` has them."""
    return Keyring(document_of(*records), clock, urandom)

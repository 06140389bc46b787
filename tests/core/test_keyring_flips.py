"""The blob of a private key of each spec: no single bit of it may change, and no other key opens it."""

import pytest

from kpcache.core.specs import MAKEABLE
from kpcache.errors import InvalidCiphertextException
from kpcache.worker.generate import generate
from tests.keyrings import ALIAS, keyring_of, record

CONTEXT = {"app": "billing", "é": ""}


@pytest.mark.parametrize("spec", MAKEABLE)
def test_every_single_bit_flip_is_refused(spec: str) -> None:
    ring = keyring_of(record(materials=2), other := record())
    private, _ = generate(spec)
    blob = bytearray(ring.encrypt(ring.resolve(ALIAS), private, CONTEXT).blob)
    for at in range(len(blob)):
        for bit in range(8):
            blob[at] ^= 1 << bit
            with pytest.raises(InvalidCiphertextException) as caught:
                ring.decrypt(bytes(blob), CONTEXT)
            assert caught.value.to_wire() == {"Code": "InvalidCiphertextException", "Message": ""}
            blob[at] ^= 1 << bit
    assert ring.decrypt(bytes(blob), CONTEXT).plaintext == private
    with pytest.raises(InvalidCiphertextException):
        keyring_of(other).decrypt(bytes(blob), CONTEXT)

"""Wrapping and opening, with the keyring's content made up in memory: no file, no clock, own randomness."""

import dataclasses
import hmac
import os
import traceback
import uuid
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kpcache.core import envelope
from kpcache.errors import (
    DisabledException,
    InvalidCiphertextException,
    KMSInvalidStateException,
    ValidationException,
)
from kpcache.keyring import Keyring, crypto
from kpcache.keyring.document import KeyRecord
from tests.keyrings import ALIAS, keyring_of, record

CONTEXT = {"app": "billing", "tenant": "é"}
text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8)
contexts = st.dictionaries(text, text, max_size=5)


RING = keyring_of(record())
KEY = RING.resolve(ALIAS)


def wrap(plaintext: bytes, context: dict[str, str], ring: Keyring = RING) -> bytes:
    return ring.encrypt(ring.resolve(ALIAS), plaintext, context).blob


def assert_refused(blob: bytes, context: dict[str, str], ring: Keyring = RING) -> None:
    """The one refusal, the same in every respect that a caller or a log can see."""
    with pytest.raises(InvalidCiphertextException) as caught:
        ring.decrypt(blob, context)
    error = caught.value
    assert error.to_wire() == {"Code": "InvalidCiphertextException", "Message": ""}
    assert error.__cause__ is None
    assert "".join(traceback.format_exception(error)).count("Traceback") == 1


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=4096), contexts)
def test_what_was_wrapped_opens_with_the_same_context(plaintext: bytes, context: dict[str, str]) -> None:
    blob = wrap(plaintext, context)
    assert len(blob) == len(plaintext) + 145 <= envelope.MAX_BLOB_BYTES
    opened = RING.decrypt(blob, dict(reversed(context.items())))
    assert (opened.key, opened.plaintext) == (KEY, plaintext)
    assert opened.material_id == RING.describe(KEY)["CurrentKeyMaterialId"]


def test_every_bit_counts() -> None:
    blob = wrap(b"sixteen bytes...", CONTEXT)
    for bit in range(len(blob) * 8):
        flipped = bytearray(blob)
        flipped[bit // 8] ^= 1 << bit % 8
        assert_refused(bytes(flipped), CONTEXT)


def test_no_blob_opens_cut_or_continued() -> None:
    blob = wrap(b"sixteen bytes...", CONTEXT)
    for size in range(len(blob)):
        assert_refused(blob[:size], CONTEXT)
    for more in (b"\0", blob, bytes(6144)):
        assert_refused(blob + more, CONTEXT)
    assert_refused(blob[1:], CONTEXT)


@settings(deadline=None)
@given(contexts, contexts)
def test_another_context_does_not_open_it(context: dict[str, str], other: dict[str, str]) -> None:
    assume(context != other)
    assert_refused(wrap(b"private", context), other)


@settings(deadline=None)
@given(st.dictionaries(text, text, min_size=1, max_size=4), st.data())
def test_a_context_split_otherwise_does_not_open_it(context: dict[str, str], data: st.DataObject) -> None:
    """The same text, divided between key, value and entries at other places."""
    whole = "".join(key + value for key, value in sorted(context.items()))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), min_size=1, max_size=7)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    pieces += [""] * (len(pieces) % 2)
    other = dict(zip(pieces[::2], pieces[1::2], strict=True))
    assume(other != context)
    assert_refused(wrap(b"private", context), other)


@pytest.mark.parametrize(
    ("context", "other"),
    [
        ({"a": "bc"}, {"ab": "c"}),
        ({"a": "b", "c": "d"}, {"a": "bcd"}),
        ({"a": "b", "c": "d"}, {"a": "d", "c": "b"}),
        ({"app": "billing"}, {"App": "billing"}),
        ({"app": "billing"}, {"app": "billing "}),
        ({"app": "billing"}, {}),
        ({}, {"": ""}),
        ({"\u00e9": ""}, {"e\u0301": ""}),
        ({"app": "?"}, {"app": "\ud800"}),
    ],
)
def test_contexts_that_have_been_taken_for_each_other(context: dict[str, str], other: dict[str, str]) -> None:
    assert_refused(wrap(b"private", context), other)


@settings(deadline=None)
@given(st.binary(max_size=400) | st.binary(max_size=300).map(lambda tail: b"\x93kpc\x01" + tail))
def test_bytes_that_are_no_blob_are_refused(blob: bytes) -> None:
    assert_refused(blob, {})


def test_a_blob_of_another_keyring_is_refused() -> None:
    assert_refused(wrap(b"private", {}), {}, keyring_of(record()))


def test_a_blob_under_one_key_relabelled_as_anothers_is_refused() -> None:
    ring = keyring_of(record(), second := record())
    blob = wrap(b"private", {}, ring)
    ids = uuid.UUID(second.key_id).bytes + bytes.fromhex(second.materials[0].material_id)
    assert_refused(blob[:5] + ids + blob[53:], {}, ring)


def sealed_by_hand(
    ring_key: KeyRecord, *, version: bytes = envelope.VERSION, commitment: bytes | None = None
) -> bytes:
    """A blob that its cipher would open, whatever its version and its commitment say."""
    secret, salt, nonce = ring_key.materials[0].secret, os.urandom(32), os.urandom(12)
    ids = uuid.UUID(ring_key.key_id).bytes, bytes.fromhex(ring_key.materials[0].material_id)
    derived = hmac.digest(secret, envelope.derivation_message(*ids, salt), "sha512")
    header = envelope.MAGIC + version + b"".join(ids) + salt + (commitment or derived[32:]) + nonce
    return header + AESGCMSIV(derived[:32]).encrypt(nonce, b"private", envelope.associated_data(header, {}))


def test_a_wrong_commitment_is_refused_though_the_rest_authenticates() -> None:
    only = record()
    ring = keyring_of(only)
    assert ring.decrypt(sealed_by_hand(only), {}).plaintext == b"private"
    assert_refused(sealed_by_hand(only, commitment=bytes(32)), {}, ring)


def test_another_version_is_refused_though_all_of_it_authenticates() -> None:
    only = record()
    assert_refused(sealed_by_hand(only, version=b"\x02"), {}, keyring_of(only))


def test_every_refusal_does_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that its time does not tell which check failed: derive, compare in constant time, decipher."""
    work: list[str] = []

    class Cipher:
        def __init__(self, key: bytes) -> None:
            self._cipher = AESGCMSIV(key)

        def decrypt(self, *args: bytes) -> bytes:
            work.append("decipher")
            return self._cipher.decrypt(*args)

    def noting(name: str, call: Any) -> Any:
        def noted(*args: Any) -> Any:
            work.append(name)
            return call(*args)

        return noted

    only, other = record(), record()
    ring = keyring_of(only)
    good = wrap(b"private", CONTEXT, ring)
    flipped = [
        good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in (0, 4, 5, 21, 53, 85, 117, 129, -1)
    ]
    refused = [
        *((blob, CONTEXT) for blob in flipped),
        (good, {}),
        (wrap(b"private", CONTEXT, keyring_of(other)), CONTEXT),
        (sealed_by_hand(only, commitment=bytes(32)), {}),
        (sealed_by_hand(only, version=b"\x02"), {}),
        (os.urandom(len(good)), {}),
    ]
    monkeypatch.setattr(crypto, "AESGCMSIV", Cipher)
    monkeypatch.setattr(hmac, "digest", noting("derive", hmac.digest))
    monkeypatch.setattr(hmac, "compare_digest", noting("compare", hmac.compare_digest))
    assert ring.decrypt(good, CONTEXT).plaintext == b"private"
    opening, work[:] = list(work), []
    assert opening == ["derive", "compare", "decipher"]
    for blob, context in refused:
        assert_refused(blob, context, ring)
        assert work == opening
        work.clear()


def test_known_answer_is_what_an_epoch_writes_and_unwrap_reads() -> None:
    """The vector of ``core/envelope``, whose numbers simply count up from 00."""

    def counting(start: int, size: int) -> bytes:
        return bytes(range(start, start + size))

    draws = iter([counting(0x50, 32), counting(0x70, 12)])
    secret, key_id, plaintext = counting(0, 32), str(uuid.UUID(bytes=counting(0x20, 16))), counting(0x80, 16)
    epoch = crypto.Epoch(secret, key_id, counting(0x30, 32).hex(), 0.0, lambda _: next(draws))
    blob = epoch.wrap(plaintext, {"é": "", "app": "billing"})
    assert blob.hex() in "".join((envelope.__doc__ or "").split())
    assert crypto.unwrap(secret, envelope.parse(blob), {"app": "billing", "é": ""}) == plaintext


@pytest.mark.parametrize("size", [0, 4097])
def test_a_plaintext_of_a_length_that_kms_refuses(size: int) -> None:
    with pytest.raises(
        ValidationException, match="Value at 'plaintext' failed to satisfy constraint: Member must"
    ):
        wrap(bytes(size), {})


def test_a_context_without_utf8_form_is_not_wrapped() -> None:
    with pytest.raises(ValidationException):
        wrap(b"private", {"app": "\ud800"})


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ("Disabled", DisabledException, "{} is disabled."),
        ("PendingDeletion", KMSInvalidStateException, "{} is pending deletion."),
    ],
)
def test_a_key_that_is_not_enabled(state: str, error: type[Exception], message: str) -> None:
    enabled = record()
    blob = wrap(b"private", {}, keyring_of(enabled))
    deletion = 9.5 if state == "PendingDeletion" else None
    ring = keyring_of(dataclasses.replace(enabled, state=state, deletion_s=deletion))
    key = ring.resolve(ALIAS)
    with pytest.raises(error) as wrapping:
        ring.encrypt(key, b"private", {})
    with pytest.raises(error) as opening:
        ring.decrypt(blob, {})
    assert str(wrapping.value) == str(opening.value) == message.format(key.arn)
    assert_refused(blob, {"app": "billing"}, ring)


def test_no_representation_shows_a_secret() -> None:
    only = record()
    ring = keyring_of(only)
    opened = ring.decrypt(wrap(b"private", {}, ring), {})
    shown = " ".join(map(repr, (only, only.materials[0], ring, opened, ring.resolve(ALIAS))))
    assert "private" not in shown
    assert "secret" not in shown
    assert repr(only.materials[0].secret) not in shown

"""Wrapping and opening, with the keyring's content made up in memory: no file, no clock, own randomness."""

import hmac
import os
import traceback
import uuid

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
from kpcache.keyring.document import Document, KeyRecord, Material

ALIAS = "alias/kpcache"
CONTEXT = {"app": "billing", "tenant": "é"}
text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8)
contexts = st.dictionaries(text, text, max_size=5)


def record() -> KeyRecord:
    key_id, secret = str(uuid.UUID(bytes=os.urandom(16), version=4)), os.urandom(32)
    material = Material(crypto.material_id(secret, key_id), 0.0, secret)
    return KeyRecord(key_id, "Enabled", 0.0, None, "", (material,))


def keyring(*records: KeyRecord) -> Keyring:
    """The first record is what the alias names."""
    return Keyring(Document(records, {ALIAS: records[0].key_id}), lambda: 0.0, os.urandom)


RING = keyring(record())
KEY = RING.resolve(ALIAS)


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
    blob = RING.encrypt(KEY, plaintext, context)
    assert len(blob) == len(plaintext) + 145 <= envelope.MAX_BLOB_BYTES
    opened = RING.decrypt(blob, dict(reversed(context.items())))
    assert (opened.key, opened.plaintext, opened.material_id) == (KEY, plaintext, KEY.material_id)


def test_every_bit_counts() -> None:
    blob = RING.encrypt(KEY, b"sixteen bytes...", CONTEXT)
    for bit in range(len(blob) * 8):
        flipped = bytearray(blob)
        flipped[bit // 8] ^= 1 << bit % 8
        assert_refused(bytes(flipped), CONTEXT)


def test_no_blob_opens_cut_or_continued() -> None:
    blob = RING.encrypt(KEY, b"sixteen bytes...", CONTEXT)
    for size in range(len(blob)):
        assert_refused(blob[:size], CONTEXT)
    for more in (b"\0", blob, bytes(6144)):
        assert_refused(blob + more, CONTEXT)
    assert_refused(blob[1:], CONTEXT)


@settings(deadline=None)
@given(contexts, contexts)
def test_another_context_does_not_open_it(context: dict[str, str], other: dict[str, str]) -> None:
    assume(context != other)
    assert_refused(RING.encrypt(KEY, b"private", context), other)


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
    assert_refused(RING.encrypt(KEY, b"private", context), other)


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
    assert_refused(RING.encrypt(KEY, b"private", context), other)


@settings(deadline=None)
@given(st.binary(max_size=400) | st.binary(max_size=300).map(lambda tail: b"\x93kpc\x01" + tail))
def test_bytes_that_are_no_blob_are_refused(blob: bytes) -> None:
    assert_refused(blob, {})


def test_a_blob_of_another_keyring_is_refused() -> None:
    assert_refused(RING.encrypt(KEY, b"private", {}), {}, keyring(record()))


def test_a_blob_under_one_key_relabelled_as_anothers_is_refused() -> None:
    ring = keyring(record(), second := record())
    blob = ring.encrypt(ring.resolve(ALIAS), b"private", {})
    ids = uuid.UUID(second.key_id).bytes + bytes.fromhex(second.materials[0].material_id)
    assert_refused(blob[:5] + ids + blob[53:], {}, ring)


def test_a_wrong_commitment_is_refused_though_the_rest_authenticates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A blob that the cipher alone would open; and the commitment is compared in constant time."""
    only = record()
    secret, salt, nonce = only.materials[0].secret, os.urandom(32), os.urandom(12)
    ids = uuid.UUID(only.key_id).bytes, bytes.fromhex(only.materials[0].material_id)
    derived = hmac.digest(secret, envelope.derivation_message(*ids, salt), "sha512")
    compared = []

    def compare_digest(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr(hmac, "compare_digest", compare_digest)

    def made_with(commitment: bytes) -> bytes:
        header = envelope.header_before_nonce(*ids, salt, commitment) + nonce
        return header + AESGCMSIV(derived[:32]).encrypt(
            nonce, b"private", envelope.associated_data(header, {})
        )

    assert keyring(only).decrypt(made_with(derived[32:]), {}).plaintext == b"private"
    assert_refused(made_with(bytes(32)), {}, keyring(only))
    assert compared == [(derived[32:], derived[32:]), (derived[32:], bytes(32))]


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
        RING.encrypt(KEY, bytes(size), {})


def test_a_context_without_utf8_form_is_not_wrapped() -> None:
    with pytest.raises(ValidationException):
        RING.encrypt(KEY, b"private", {"app": "\ud800"})


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ("Disabled", DisabledException, "{} is disabled."),
        ("PendingDeletion", KMSInvalidStateException, "{} is pending deletion."),
    ],
)
def test_a_key_that_is_not_enabled(state: str, error: type[Exception], message: str) -> None:
    enabled = record()
    blob = keyring(enabled).encrypt(keyring(enabled).resolve(ALIAS), b"private", {})
    deletion = 9.5 if state == "PendingDeletion" else None
    ring = keyring(KeyRecord(enabled.key_id, state, 0.0, deletion, "", enabled.materials))
    key = ring.resolve(ALIAS)
    with pytest.raises(error) as wrapping:
        ring.encrypt(key, b"private", {})
    with pytest.raises(error) as opening:
        ring.decrypt(blob, {})
    assert str(wrapping.value) == str(opening.value) == message.format(key.arn)
    assert_refused(blob, {"app": "billing"}, ring)


def test_no_representation_shows_a_secret() -> None:
    only = record()
    ring = keyring(only)
    opened = ring.decrypt(ring.encrypt(ring.resolve(ALIAS), b"private", {}), {})
    shown = " ".join(map(repr, (only, only.materials[0], ring, opened, ring.resolve(ALIAS))))
    assert "private" not in shown
    assert "secret" not in shown
    assert repr(only.materials[0].secret) not in shown

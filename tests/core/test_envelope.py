"""The blob format: its known answer, its offsets, and that no two contexts share their associated data."""

import hmac
import re

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from hypothesis import given, settings
from hypothesis import strategies as st

from kpcache.core import envelope
from kpcache.errors import InvalidCiphertextException

CONTEXT = {"é": "", "app": "billing"}
text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12)
contexts = st.dictionaries(text, text, max_size=6)


def documented(name: str) -> bytes:
    """A value of the known answer, out of the docstring that specifies the format."""
    match = re.search(rf"^    {name}  +((?:[0-9a-f]+\n? *)+)$", envelope.__doc__ or "", re.MULTILINE)
    assert match is not None
    return bytes.fromhex("".join(match.group(1).split()))


def read_context(data: bytes) -> dict[str, str]:
    """Reads the context's part of the associated data; only what fits exactly is accepted."""
    rest = memoryview(data)

    def take(size: int) -> bytes:
        nonlocal rest
        taken, rest = bytes(rest[:size]), rest[size:]
        assert len(taken) == size
        return taken

    def take_text() -> str:
        return take(int.from_bytes(take(4), "big")).decode()

    context = {take_text(): take_text() for _ in range(int.from_bytes(take(4), "big"))}
    assert not rest
    return context


def test_cipher_gives_the_answer_of_rfc_8452() -> None:
    """Appendix C.2, its first case: no plaintext, no associated data, so the tag alone."""
    cipher = AESGCMSIV(b"\x01" + bytes(31))
    assert cipher.encrypt(b"\x03" + bytes(11), b"", b"").hex() == "07f5f4169bbf55a8400cd47ea6fd400f"


def test_known_answer_follows_from_the_text_of_the_format() -> None:
    """Every byte put together by hand, without the code under test."""
    names = documented("key id") + documented("material id") + documented("salt")
    derived = hmac.new(documented("material"), b"kpcache envelope 1" + names, "sha512").digest()
    header = bytes.fromhex("93 6b 70 63 01") + names + derived[32:] + documented("nonce")
    data = header + b"\0\0\0\x02" + b"\0\0\0\x03app" + b"\0\0\0\x07billing" + b"\0\0\0\x02\xc3\xa9" + bytes(4)
    sealed = AESGCMSIV(derived[:32]).encrypt(documented("nonce"), documented("plaintext"), data)
    assert documented("blob") == header + sealed


def test_code_agrees_with_the_known_answer() -> None:
    blob = documented("blob")
    parts = envelope.parse(blob)
    assert parts.key_id == documented("key id")
    assert parts.material_id == documented("material id")
    assert parts.salt == documented("salt")
    assert parts.nonce == documented("nonce")
    message = envelope.derivation_message(parts.key_id, parts.material_id, parts.salt)
    derived = hmac.digest(documented("material"), message, "sha512")
    assert parts.commitment == derived[32:]
    shared = envelope.header_before_nonce(parts.key_id, parts.material_id, parts.salt, parts.commitment)
    assert shared + parts.nonce == parts.header == blob[: envelope.HEADER_BYTES]
    data = envelope.associated_data(parts.header, CONTEXT)
    assert AESGCMSIV(derived[:32]).decrypt(parts.nonce, parts.ciphertext, data) == documented("plaintext")


@settings(deadline=None)
@given(contexts)
def test_associated_data_can_be_read_back_so_no_two_contexts_share_it(context: dict[str, str]) -> None:
    header = bytes(envelope.HEADER_BYTES)
    data = envelope.associated_data(header, context)
    assert data[: len(header)] == header
    assert read_context(data[len(header) :]) == context


@settings(deadline=None)
@given(contexts.flatmap(lambda context: st.tuples(st.just(context), st.permutations(list(context)))))
def test_associated_data_does_not_depend_on_the_order_of_entries(
    case: tuple[dict[str, str], list[str]],
) -> None:
    context, order = case
    shuffled = {key: context[key] for key in order}
    assert envelope.associated_data(b"", shuffled) == envelope.associated_data(b"", context)


@settings(deadline=None)
@given(contexts)
def test_entries_are_in_the_order_of_their_utf8_keys(context: dict[str, str]) -> None:
    keys = [key.encode() for key in read_context(envelope.associated_data(b"", context))]
    assert keys == sorted(keys)


def test_order_is_that_of_utf8_and_not_of_utf16() -> None:
    """U+FFFF sorts before U+10000 in UTF-8, and behind its surrogates in UTF-16."""
    data = envelope.associated_data(b"", {"\U00010000": "", "\uffff": ""})
    assert list(read_context(data)) == ["\uffff", "\U00010000"]


def test_unicode_is_not_normalised() -> None:
    assert envelope.associated_data(b"", {"\u00e9": ""}) != envelope.associated_data(b"", {"e\u0301": ""})


@pytest.mark.parametrize("size", [0, 1, 128, 129, 144, 145, 6145, 65536])
def test_a_length_that_no_blob_has_is_refused(size: int) -> None:
    blob = (documented("blob") + bytes(65536))[:size]
    with pytest.raises(InvalidCiphertextException):
        envelope.parse(blob)


@pytest.mark.parametrize("size", [146, 6144])
def test_the_shortest_and_the_longest_blob_are_taken_apart(size: int) -> None:
    blob = (documented("blob") + bytes(6144))[:size]
    parts = envelope.parse(blob)
    assert parts.header + parts.ciphertext == blob


@pytest.mark.parametrize("offset", range(5))
def test_another_magic_or_version_is_noted(offset: int) -> None:
    blob = bytearray(documented("blob"))
    assert envelope.parse(bytes(blob)).is_ours
    blob[offset] ^= 2
    assert not envelope.parse(bytes(blob)).is_ours


def test_the_largest_plaintext_fits_into_the_largest_blob() -> None:
    assert (
        envelope.HEADER_BYTES + envelope.MAX_PLAINTEXT_BYTES + envelope.TAG_BYTES <= envelope.MAX_BLOB_BYTES
    )

"""The blob: a private key, encrypted under a key of the keyring and bound to an encryption context.

Blobs are stored by applications for years and only the keyring opens them, so version 1 is final: what
is written below may be added to (as another version), never changed.

A blob, in bytes (offsets from 0; no alignment, no trailing bytes):

    0    4   magic 93 6b 70 63 (no text and no AWS KMS blob starts so)
    4    1   version, 01
    5   16   key id: the 16 bytes of the UUID, in RFC 9562 order
    21  32   material id: which material of that key (KMS: KeyMaterialId, there as 64 hex digits)
    53  32   salt of the epoch, random
    85  32   commitment of the epoch
    117 12   nonce, random, fresh for each wrap
    129  n   AES-256-GCM-SIV ciphertext (RFC 8452), as long as the plaintext, 1 to 4096 bytes
    129+n 16 its tag

Key and commitment of an epoch: the first and the last 32 bytes of
HMAC-SHA-512(material, message), where material is the 32 random bytes of that name and message is
the 18 ASCII bytes ``kpcache envelope 1``, key id (16), material id (32), salt (32).
A reader derives both, compares the commitment in constant time, and only then decrypts: GCM-SIV alone
would let one ciphertext open under two keys.

Associated data: bytes 0 to 128 of the blob, then the encryption context: the number of its entries,
then for each entry, in ascending order of the keys' UTF-8 bytes, the length of the key, the key, the
length of the value, the value. Numbers and lengths are 4 bytes, big-endian, and count bytes; text is
UTF-8, neither normalised nor trimmed. No context and an empty one are the same. Without lengths and count,
``{"a": "bc"}`` would open what ``{"ab": "c"}`` closed.

A known answer, all hexadecimal but the context:

    material     000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
    key id       202122232425262728292a2b2c2d2e2f
    material id  303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f
    salt         505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f
    nonce        707172737475767778797a7b
    context      {"é": "", "app": "billing"}     (app comes first: 61 is below c3 a9)
    plaintext    808182838485868788898a8b8c8d8e8f
    blob         936b706301202122232425262728292a2b2c2d2e2f303132333435363738393a
                 3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a
                 5b5c5d5e5f606162636465666768696a6b6c6d6e6f44c93e31e76beabf3b6093
                 9e716954375747b466aee28a70d9111d4f76824e02707172737475767778797a
                 7b00a240d79186fb8a6c6f819ec0db1b4888c0816bfc80c9207f17f80baff989
                 18
"""

from collections.abc import Mapping
from typing import NamedTuple

from kpcache.errors import InvalidCiphertextException

MAGIC = b"\x93kpc"
VERSION = b"\x01"
DERIVATION_LABEL = b"kpcache envelope 1"
SALT_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
HEADER_BYTES = 129
# KMS: PlaintextType is 1..4096 bytes, CiphertextType 1..6144. The largest blob made here has 4241.
MAX_PLAINTEXT_BYTES = 4096
MAX_BLOB_BYTES = 6144
_LENGTH_BYTES = 4


class Envelope(NamedTuple):
    """A blob taken apart, nothing of it verified. Ids are raw bytes; ``ciphertext`` includes the tag.

    ``is_ours``: magic and version are this format's; if not, the rest means nothing, and must not open.
    """

    is_ours: bool
    header: bytes
    key_id: bytes
    material_id: bytes
    salt: bytes
    commitment: bytes
    nonce: bytes
    ciphertext: bytes


def derivation_message(key_id: bytes, material_id: bytes, salt: bytes) -> bytes:
    """What is fed to HMAC-SHA-512, keyed with the material, to get an epoch's key and commitment."""
    return DERIVATION_LABEL + key_id + material_id + salt


def header_before_nonce(key_id: bytes, material_id: bytes, salt: bytes, commitment: bytes) -> bytes:
    """The part of the header that all blobs of an epoch share; a nonce of 12 bytes completes it."""
    return MAGIC + VERSION + key_id + material_id + salt + commitment


def associated_data(header: bytes, context: Mapping[str, str]) -> bytes:
    """Header and encryption context, as AES-GCM-SIV is to authenticate them.

    Raises ``UnicodeEncodeError`` for a context with lone surrogates, which have no UTF-8 form.
    """
    if not context:
        return header + bytes(_LENGTH_BYTES)
    parts = [header, len(context).to_bytes(_LENGTH_BYTES, "big")]
    # Strings sort by code point, which is the order of their UTF-8 bytes.
    for key in sorted(context):
        for text in (key, context[key]):
            data = text.encode()
            parts += (len(data).to_bytes(_LENGTH_BYTES, "big"), data)
    return b"".join(parts)


def parse(blob: bytes) -> Envelope:
    """Take a blob apart. Raises ``InvalidCiphertextException`` for a length that no blob has.

    Magic and version are only noted, for whoever opens it to refuse when the time comes: a refusal must not
    tell by its time which check it was, and every one but that of the length could.
    """
    if not HEADER_BYTES + TAG_BYTES < len(blob) <= MAX_BLOB_BYTES:
        raise InvalidCiphertextException
    return Envelope(
        is_ours=blob[:5] == MAGIC + VERSION,
        header=blob[:129],
        key_id=blob[5:21],
        material_id=blob[21:53],
        salt=blob[53:85],
        commitment=blob[85:117],
        nonce=blob[117:129],
        ciphertext=blob[129:],
    )

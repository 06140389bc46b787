"""Epochs: the keys that wrap and open blobs, derived from a key's material as ``core/envelope`` says.

An epoch is one salt, hence one AES key. It ends after an hour or 2^32 wraps, whichever is first, and
with every start of the daemon and every new VM generation. At 2^32 random nonces of 96 bits the chance
that any two are equal is at most 2^-33; under GCM-SIV a repeat would show no more than whether two
plaintexts were equal (RFC 8452, section 9), which pairs handed out once never are.

Salts and nonces come from the kernel (``urandom``), never from OpenSSL's generator: that one lives in
this process and repeats itself in a clone of the machine. Nothing here uses it.
"""

import hmac
import uuid
from collections.abc import Callable, Mapping
from typing import Final

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from kpcache.core import envelope
from kpcache.errors import ConfigError, InvalidCiphertextException

EPOCH_S: Final = 3600.0
EPOCH_WRAPS: Final = 2**32
MATERIAL_BYTES: Final = 32
# In place of a material that is not here: keys derived from it open nothing, they only take the time.
_DECOY: Final = bytes(MATERIAL_BYTES)
_MATERIAL_ID_LABEL: Final = b"kpcache material id 1"


def require_support() -> None:
    """Raise ``ConfigError`` where the installed OpenSSL lacks AES-GCM-SIV (it came with 3.2)."""
    try:
        AESGCMSIV(bytes(MATERIAL_BYTES))
    except UnsupportedAlgorithm as error:
        raise ConfigError(
            "keyring: cryptography uses an OpenSSL older than 3.2, which has no AES-GCM-SIV; install "
            "its own wheel: pip install --force-reinstall --only-binary cryptography cryptography"
        ) from error


def material_id(secret: bytes, key_id: str) -> str:
    """64 hex digits that name a material (KMS: KeyMaterialId).

    Derived, so that a keyring file in which key and material were mixed up is found out when it is
    read; a keyed hash of 32 random bytes tells nothing about them.
    """
    message = _MATERIAL_ID_LABEL + uuid.UUID(key_id).bytes
    return hmac.digest(secret, message, "sha512")[:32].hex()


def _derive(secret: bytes, key: bytes, material: bytes, salt: bytes) -> tuple[AESGCMSIV, bytes]:
    """The cipher and the 32-byte commitment of an epoch."""
    derived = hmac.digest(secret, envelope.derivation_message(key, material, salt), "sha512")
    return AESGCMSIV(derived[:32]), derived[32:]


class Epoch:
    """Wraps under one derived key. For one thread: the count of wraps is not locked."""

    __slots__ = ("_cipher", "_ends_at", "_shared_header", "_urandom", "_wraps")

    def __init__(
        self, secret: bytes, key_id: str, material_id: str, now: float, urandom: Callable[[int], bytes]
    ) -> None:
        """Start an epoch at monotonic second ``now`` with a fresh salt."""
        key, material, salt = (
            uuid.UUID(key_id).bytes,
            bytes.fromhex(material_id),
            urandom(envelope.SALT_BYTES),
        )
        self._cipher, commitment = _derive(secret, key, material, salt)
        self._shared_header = envelope.header_before_nonce(key, material, salt, commitment)
        self._urandom = urandom
        self._wraps = 0
        self._ends_at = now + EPOCH_S

    def is_over(self, now: float) -> bool:
        """Whether the next wrap must use another epoch."""
        return now >= self._ends_at or self._wraps >= EPOCH_WRAPS

    def wrap(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        """The blob. Raises ``UnicodeEncodeError`` for a context that has no UTF-8 form."""
        self._wraps += 1
        nonce = self._urandom(envelope.NONCE_BYTES)
        header = self._shared_header + nonce
        return header + self._cipher.encrypt(nonce, plaintext, envelope.associated_data(header, context))


def unwrap(secret: bytes | None, blob: envelope.Envelope, context: Mapping[str, str]) -> bytes:
    """The plaintext of a blob that names this material; None for one that names no material of ours.

    Raises ``InvalidCiphertextException``, no more said, and not by its time either: whatever is wrong, a key
    is derived, the commitment compared in constant time and the cipher run before anything is refused.
    A plaintext whose commitment is wrong is thrown away: GCM-SIV alone would let a blob that was made for it
    open under two materials.
    """
    derived_from = _DECOY if secret is None else secret
    cipher, commitment = _derive(derived_from, blob.key_id, blob.material_id, blob.salt)
    is_committed = hmac.compare_digest(commitment, blob.commitment)
    try:
        plaintext = cipher.decrypt(
            blob.nonce, blob.ciphertext, envelope.associated_data(blob.header, context)
        )
    except (InvalidTag, UnicodeEncodeError):
        is_authentic = False
    else:
        is_authentic = True
    if is_authentic and is_committed and blob.is_ours and secret is not None:
        return plaintext
    # Out here, and so without a cause: that would tell a reader of the log which check it was.
    raise InvalidCiphertextException

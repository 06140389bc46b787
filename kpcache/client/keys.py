"""From an answer to a key object, without paying again for what the daemon has already checked."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    from kpcache.client.members import DataKeyPair, Decrypted


def load_private_key(source: "DataKeyPair | Decrypted | Mapping[str, Any] | bytes") -> "PrivateKeyTypes":
    """The cryptography private key in an answer of ``generate_data_key_pair`` or ``decrypt``, or in DER.

    RSA re-validation is skipped on purpose. It would repeat what the daemon did before it let the pair
    into a pool (and did more thoroughly: the arithmetic of every part of the key), and it takes 55 ms
    of CPU for RSA-2048 against 0.01 ms without: nearly all that taking a made pair saved. Use this for
    bytes that came from kpcache, unaltered (an answer, or what ``decrypt`` authenticated), and
    ``load_der_private_key`` for bytes from elsewhere.

    ``source``: the answer, or PKCS#8 DER bytes. Raises ``ValueError`` for an answer without a plaintext
    private key and for bytes that are no key. The first call in a process imports cryptography, tens
    of milliseconds: import it at start-up where that matters.
    """
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    der = source if isinstance(source, bytes) else _plaintext(source)
    return load_der_private_key(der, password=None, unsafe_skip_rsa_key_validation=True)


def _plaintext(answer: Mapping[str, Any]) -> bytes:
    der = answer.get("PrivateKeyPlaintext") or answer.get("Plaintext")
    if not der:
        raise ValueError("the answer holds no plaintext private key: decrypt its blob first")
    return bytes(der)

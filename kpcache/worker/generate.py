"""How a pair of each spec is made: by OpenSSL, through cryptography, with fresh randomness mixed in first.

Nothing here checks what comes out; ``checks`` does, on the same bytes.
"""

import os
from collections.abc import Callable
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mlkem, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from kpcache.core.specs import MAKEABLE, RSA_PUBLIC_EXPONENT, SPECS

_RESEED_BYTES: Final = 48  # as much as the seed of OpenSSL's CTR_DRBG with AES-256 (SP 800-90A)

_CURVES: Final[dict[int | str, Callable[[], ec.EllipticCurve]]] = {
    "secp256r1": ec.SECP256R1,
    "secp384r1": ec.SECP384R1,
    "secp521r1": ec.SECP521R1,
    "secp256k1": ec.SECP256K1,
}
_ML_KEM: Final[dict[int | str, Callable[[], Any]]] = {
    768: mlkem.MLKEM768PrivateKey.generate,
    1024: mlkem.MLKEM1024PrivateKey.generate,
}


def curve(parameter: int | str) -> ec.EllipticCurve:
    """The curve that a spec's parameter names."""
    return _CURVES[parameter]()


def _private_key(spec: str) -> Any:
    row = SPECS[spec]
    if row.family == "rsa":
        return rsa.generate_private_key(RSA_PUBLIC_EXPONENT, int(row.parameter))
    if row.family == "ec":
        return ec.generate_private_key(curve(row.parameter))
    if row.family == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return _ML_KEM[row.parameter]()


def generate(spec: str) -> tuple[bytes, bytes]:
    """A new pair of a makeable ``spec``: DER PKCS#8 private key, DER SubjectPublicKeyInfo public key.

    Call a ``reseeder`` before each. Raises ``ValueError`` for a spec that cannot be made.
    """
    if spec not in MAKEABLE:
        raise ValueError("no pair of this spec can be made")
    key = _private_key(spec)
    return (
        key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    )


def reseeder() -> Callable[[], None] | None:
    """A function that mixes 48 fresh bytes of the kernel's randomness into OpenSSL's generator (5 µs).

    OpenSSL's generator lives in the process and asks the kernel again only after an hour, so two copies
    of a process (a cloned VM) make the same keys meanwhile. None where cryptography does not offer
    OpenSSL's RAND_add, which is no part of its interface: then a process may make one key, with the
    randomness that it asked the kernel for at its start.
    """
    try:
        from cryptography.hazmat.bindings._rust import _openssl

        rand_add = _openssl.lib.RAND_add
    except (ImportError, AttributeError):
        return None

    def reseed() -> None:
        rand_add(os.urandom(_RESEED_BYTES), _RESEED_BYTES, _RESEED_BYTES)

    return reseed

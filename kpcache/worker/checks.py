"""Whether two byte strings are a sound pair of a spec, and the tags by which it is known again.

Everything is judged on the very bytes to be served, parsed anew. No I/O; randomness only where a
signature or an encapsulation takes some, and nothing of it is kept.
"""

import hashlib
import math
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mlkem, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from kpcache.core.specs import RSA_PUBLIC_EXPONENT, SPECS, Spec
from kpcache.worker.generate import curve

TAG_BYTES: Final = 16
_TAG_PERSON: Final = b"kpc-prime"
_BLAKE2B_BLOCK_BYTES: Final = 128
_MESSAGE: Final = b"kpcache pairwise consistency"
_ML_KEM_CLASSES: Final[dict[int | str, tuple[type[Any], type[Any]]]] = {
    768: (mlkem.MLKEM768PrivateKey, mlkem.MLKEM768PublicKey),
    1024: (mlkem.MLKEM1024PrivateKey, mlkem.MLKEM1024PublicKey),
}


class _UnsoundError(Exception):
    """The reason, in words without key material."""


def check(spec: str, private: bytes, public: bytes) -> str:
    """Why ``private`` (DER PKCS#8) and ``public`` (DER SPKI) are no sound pair of ``spec``, or "".

    RSA: integer arithmetic on the parsed key, 45 µs for RSA_2048, which finds every changed bit; signing
    and verifying, which costs twenty times as much, finds a quarter of them, because OpenSSL checks its
    CRT result and falls back to d. Other specs: their pairwise consistency test on both encodings, which
    OpenSSL's default provider does not do by itself. One part of one encoding cannot be checked by
    anyone: the last 32 bytes of an ML-KEM seed are bound to nothing else (z of FIPS 203).
    """
    row = SPECS[spec]
    try:
        _CHECKS[row.family](row, private, public)
    except _UnsoundError as error:
        return str(error)
    except Exception as error:
        # Damaged bytes can make the parser or OpenSSL fail in ways no list foresees. Only the type is
        # told: a message might quote what it could not read.
        return f"cannot be used: {type(error).__name__}"
    return ""


def tags(spec: str, private: bytes, public: bytes, tag_key: bytes) -> list[bytes]:
    """Tags of a pair that has passed ``check``: of p and of q for RSA, else one of the public key.

    A tag is 16 bytes of keyed BLAKE2b; two sound pairs never share one. ``tag_key`` is 32 bytes, the
    same for all workers of an installation.
    """
    if SPECS[spec].family != "rsa":
        return [_tag(public, tag_key)]
    numbers = _load_private(private, rsa.RSAPrivateKey).private_numbers()
    found = [
        _tag(prime.to_bytes((prime.bit_length() + 7) // 8, "big"), tag_key)
        for prime in (numbers.p, numbers.q)
    ]
    # BLAKE2b works on the C stack and leaves parts of its last block there, which was q: now it is this one.
    _tag(bytes(_BLAKE2B_BLOCK_BYTES), tag_key)
    return found


def _tag(value: bytes, tag_key: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=TAG_BYTES, key=tag_key, person=_TAG_PERSON).digest()


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise _UnsoundError(reason)


def _load_private(private: bytes, cls: type[Any]) -> Any:
    """The key that ``private`` encodes, if it is the one way to encode it (RFC 5958, DER)."""
    # Without the flag this is 50 ms of primality tests for RSA_2048, as much as making the key; OpenSSL
    # made those tests when it found the primes.
    key = load_der_private_key(private, None, unsafe_skip_rsa_key_validation=True)
    _require(isinstance(key, cls), "private key of another kind")
    _require(
        key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) == private, "private key not DER"
    )
    return key


def _load_public(public: bytes, cls: type[Any]) -> Any:
    """The key that ``public`` encodes; that it is the one way to encode it, callers see by ``_spki``."""
    key = load_der_public_key(public)
    _require(isinstance(key, cls), "public key of another kind")
    return key


def _spki(public_key: Any) -> bytes:
    encoded: bytes = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _check_rsa(row: Spec, private: bytes, public: bytes) -> None:
    """FIPS 186-5 A.1.1 and RFC 8017 §3.2, but for the primality of p and q; and p is the larger one."""
    key = _load_private(private, rsa.RSAPrivateKey)
    numbers = key.private_numbers()
    n, e = numbers.public_numbers.n, numbers.public_numbers.e
    p, q, d = numbers.p, numbers.q, numbers.d
    bits = int(row.parameter)
    _require(e == RSA_PUBLIC_EXPONENT, "e is not 65537")
    _require(n == p * q, "n is not p times q")
    _require(_is_prime_sized(p, bits) and _is_prime_sized(q, bits), "p or q has another size")
    # RFC 8017 leaves the order open; OpenSSL has the larger first, so the other order is not what was made.
    _require(p > q, "p is not the larger prime")
    _require((p - q) >> (bits // 2 - 100) > 0, "p and q are close")
    p_1, q_1 = p - 1, q - 1
    _require(bits // 2 < d.bit_length() and d < p_1 * q_1 // math.gcd(p_1, q_1), "d is out of range")
    _require(e * d % p_1 == 1 and e * d % q_1 == 1, "d is not the inverse of e")
    _require(numbers.dmp1 == d % p_1 and numbers.dmq1 == d % q_1, "dP or dQ is wrong")
    _require(0 < numbers.iqmp < p and numbers.iqmp * q % p == 1, "qInv is wrong")
    _require(_spki(key.public_key()) == public, "public key of another pair")


def _is_prime_sized(prime: int, bits: int) -> bool:
    """Whether √2·2^(bits/2-1) <= prime < 2^(bits/2), told by the size of its square.

    The product of two such primes has exactly ``bits`` bits.
    """
    return (prime * prime).bit_length() == bits and prime & 1 == 1


def _check_ec(row: Spec, private: bytes, public: bytes) -> None:
    key = _load_private(private, ec.EllipticCurvePrivateKey)
    verifier = _load_public(public, ec.EllipticCurvePublicKey)
    _require(key.curve.name == row.parameter and verifier.curve.name == row.parameter, "another curve")
    scalar = key.private_numbers().private_value
    # The private encoding carries the public point, too: SP 800-56A 5.6.2.4 wants it computed again.
    again = ec.derive_private_key(scalar, curve(row.parameter))
    _require(_spki(again.public_key()) == public == _spki(key.public_key()), "public key of another pair")
    algorithm = ec.ECDSA(SHA256())
    verifier.verify(key.sign(_MESSAGE, algorithm), _MESSAGE, algorithm)


def _check_ed25519(_row: Spec, private: bytes, public: bytes) -> None:
    key = _load_private(private, ed25519.Ed25519PrivateKey)
    verifier = _load_public(public, ed25519.Ed25519PublicKey)
    _require(_spki(key.public_key()) == public, "public key of another pair")
    verifier.verify(key.sign(_MESSAGE), _MESSAGE)


def _check_ml_kem(row: Spec, private: bytes, public: bytes) -> None:
    private_class, public_class = _ML_KEM_CLASSES[row.parameter]
    key = _load_private(private, private_class)
    encapsulator = _load_public(public, public_class)
    _require(_spki(key.public_key()) == public, "public key of another pair")
    shared, ciphertext = encapsulator.encapsulate()
    _require(key.decapsulate(ciphertext) == shared, "encapsulated and decapsulated secrets differ")


_CHECKS: Final = {"rsa": _check_rsa, "ec": _check_ec, "ed25519": _check_ed25519, "ml_kem": _check_ml_kem}

"""What may happen to the bytes of a pair, as (name, private, public). None of it may pass for sound."""

from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from bench.keys.served import Served
from kpcache.core.specs import SPECS

Damaged = tuple[str, bytes, bytes]

# z of FIPS 203: the end of an ML-KEM seed is random and bound to nothing, so any value is as sound.
_UNBOUND_BYTES = {"ml_kem": 32}


def unbound_bits(spec: str) -> int:
    """Bits at the private encoding's end which nobody can judge: each value of them is a sound key."""
    return 8 * _UNBOUND_BYTES.get(SPECS[spec].family, 0)


def flips(pair: Served) -> Iterator[Damaged]:
    """Every single bit of both encodings, each flipped alone. ``name`` is the encoding and the bit."""
    private, public = bytearray(pair.private), bytearray(pair.public)
    for bit in range(8 * len(private) - unbound_bits(pair.spec)):
        private[bit // 8] ^= 1 << bit % 8
        yield f"private bit {bit}", bytes(private), pair.public
        private[bit // 8] ^= 1 << bit % 8
    for bit in range(8 * len(public)):
        public[bit // 8] ^= 1 << bit % 8
        yield f"public bit {bit}", pair.private, bytes(public)
        public[bit // 8] ^= 1 << bit % 8


def others(pair: Served, foreign: Served, unlike: Served) -> Iterator[Damaged]:
    """All but flips. ``foreign`` is another pair of the same spec, ``unlike`` one of another spec."""
    _, private, public = pair
    yield "public key of another pair", private, foreign.public
    yield "private key of another pair", foreign.private, public
    yield "public key of another spec", private, unlike.public
    yield "private key of another spec", unlike.private, public
    yield "pair of another spec", unlike.private, unlike.public
    for name, tail in (("one byte", b"\0"), ("16 bytes", bytes(16)), ("an end of contents", b"\0\0")):
        yield f"{name} behind the private key", private + tail, public
        yield f"{name} behind the public key", private, public + tail
    yield "the private key twice", private * 2, public
    yield "the public key twice", private, public * 2
    yield "private key without its last byte", private[:-1], public
    yield "public key without its last byte", private, public[:-1]
    yield "empty private key", b"", public
    yield "empty public key", private, b""
    if SPECS[pair.spec].family == "rsa":
        yield from _exchanged_primes(pair)


def _exchanged_primes(pair: Served) -> Iterator[Damaged]:
    """p and q change places: they alone, and with all that follows from their order. The latter is a sound
    key by its numbers, yet not the one way to write it: OpenSSL puts the larger prime first."""
    numbers: Any = load_der_private_key(pair.private, None, unsafe_skip_rsa_key_validation=True)
    numbers = numbers.private_numbers()
    p, q = (prime.to_bytes((prime.bit_length() + 7) // 8, "big") for prime in (numbers.p, numbers.q))
    head, middle, tail = _split(pair.private, p, q)
    yield "p and q exchanged", head + q + middle + p + tail, pair.public
    turned = rsa.RSAPrivateNumbers(
        p=numbers.q,
        q=numbers.p,
        d=numbers.d,
        dmp1=numbers.dmq1,
        dmq1=numbers.dmp1,
        iqmp=pow(numbers.p, -1, numbers.q),
        public_numbers=numbers.public_numbers,
    ).private_key(unsafe_skip_rsa_key_validation=True)
    private = turned.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    yield "p and q exchanged, with dP, dQ and qInv", private, pair.public


def _split(private: bytes, p: bytes, q: bytes) -> tuple[bytes, bytes, bytes]:
    """What stands before p, between p and q, and behind q."""
    head, _, rest = private.partition(p)
    middle, _, tail = rest.partition(q)
    return head, middle, tail

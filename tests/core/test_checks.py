"""No unsound pair passes: every changed bit is found, and so is each number that breaks a rule."""

import functools
import random
import re
from collections.abc import Callable
from math import gcd, lcm

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)
from hypothesis import given
from hypothesis import strategies as st

from kpcache.core.specs import MAKEABLE, SPECS
from kpcache.worker import checks
from kpcache.worker.checks import check, tags
from kpcache.worker.generate import generate

# z of FIPS 203, the last 32 bytes of the seed, is random and bound to nothing: any value is as sound.
_UNBOUND_BYTES = {"ML_KEM_768": 32, "ML_KEM_1024": 32}
_TAG_KEY = b"k" * 32
_random = random.Random(65537)


@functools.cache
def pair(spec: str) -> tuple[bytes, bytes]:
    return generate(spec)


def flipped(data: bytes, bit: int) -> bytes:
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


@pytest.mark.parametrize("spec", MAKEABLE)
def test_a_generated_pair_is_sound(spec: str) -> None:
    assert check(spec, *pair(spec)) == ""


@pytest.mark.parametrize("spec", MAKEABLE)
def test_every_flipped_bit_is_found_and_told_without_key_material(spec: str) -> None:
    private, public = pair(spec)
    checked_bits = range(8 * (len(private) - _UNBOUND_BYTES.get(spec, 0)))
    reasons = {bit: check(spec, flipped(private, bit), public) for bit in checked_bits}
    assert [bit for bit, reason in reasons.items() if not reason] == []
    public_reasons = {bit: check(spec, private, flipped(public, bit)) for bit in range(8 * len(public))}
    assert [bit for bit, reason in public_reasons.items() if not reason] == []
    for reason in {*reasons.values(), *public_reasons.values()}:
        assert len(reason) < 80
        assert not re.search(r"\d{6}|[0-9a-f]{10}", reason)


@pytest.mark.parametrize("spec", MAKEABLE)
def test_two_halves_of_different_pairs_are_unsound(spec: str) -> None:
    private, public = pair(spec)
    other = flipped(public, 8 * 40) if spec.startswith("RSA") else generate(spec)[1]
    assert check(spec, private, other) == "public key of another pair"


@pytest.mark.parametrize("spec", MAKEABLE)
def test_a_pair_of_another_spec_is_unsound(spec: str) -> None:
    for other in MAKEABLE:
        if other == spec:
            continue
        reason = check(spec, *pair(other))
        if SPECS[other].family != SPECS[spec].family or SPECS[spec].family == "ml_kem":
            assert reason == "private key of another kind"
        else:
            assert reason == ("p or q has another size" if spec.startswith("RSA") else "another curve")


@pytest.mark.parametrize("spec", [spec for spec in MAKEABLE if not spec.startswith("RSA")])
def test_a_public_key_of_another_kind_is_unsound(spec: str) -> None:
    assert check(spec, pair(spec)[0], pair("RSA_2048")[1]) == "public key of another kind"


@pytest.mark.parametrize("spec", [spec for spec in MAKEABLE if not spec.startswith("RSA")])
def test_the_two_keys_have_to_work_together(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when both encodings look right: here the public one is read as another pair's."""
    other = load_der_public_key(generate(spec)[1])
    monkeypatch.setattr(checks, "load_der_public_key", lambda _public: other)
    assert check(spec, *pair(spec))


@pytest.mark.parametrize("spec", MAKEABLE)
def test_bytes_behind_the_key_are_found(spec: str) -> None:
    private, public = pair(spec)
    assert check(spec, private + b"\0", public)
    assert check(spec, private, public + b"\0")


@given(st.sampled_from(MAKEABLE), st.binary(max_size=300), st.binary(max_size=300))
def test_random_bytes_are_refused_and_never_raise(spec: str, private: bytes, public: bytes) -> None:
    assert check(spec, private, public)


# RSA: each rule by itself. The numbers are put into DER here, because no library writes wrong ones.


def _der(tag: int, body: bytes) -> bytes:
    size = len(body)
    if size < 128:
        return bytes([tag, size]) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def _integer(value: int) -> bytes:
    return _der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _encoded(p: int, q: int, e: int = 65537, **replaced: int) -> tuple[bytes, bytes]:
    """PKCS#8 and SPKI (RFC 8017 A.1.2) with all numbers right for p, q and e but those replaced."""
    d = pow(e, -1, lcm(p - 1, q - 1))
    numbers = {"n": p * q, "e": e, "d": d, "p": p, "q": q}
    numbers |= {"dp": d % (p - 1), "dq": d % (q - 1), "qinv": pow(q, -1, p)} | replaced
    body = _der(0x30, _integer(0) + b"".join(map(_integer, numbers.values())))
    algorithm = bytes.fromhex("300d06092a864886f70d0101010500")
    public = rsa.RSAPublicNumbers(numbers["e"], numbers["n"]).public_key()
    return (
        _der(0x30, _integer(0) + algorithm + _der(4, body)),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    )


@functools.cache
def numbers() -> rsa.RSAPrivateNumbers:
    key = load_der_private_key(pair("RSA_2048")[0], None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key.private_numbers()


def _usable(draw: Callable[[], int], e: int = 65537) -> int:
    """An odd number that e is prime to, as p - 1 has to be; not prime, which is not looked at."""
    while True:
        candidate = draw() | 1
        if gcd(candidate - 1, e) == 1:
            return candidate


def _of_bits(bits: int) -> int:
    return _usable(lambda: _random.getrandbits(bits - 2) | 3 << bits - 2)


def _coprime_to(p: int, draw: Callable[[], int]) -> int:
    """As ``_usable``, and prime to p, so that qInv exists."""
    while True:
        candidate = _usable(draw)
        if gcd(candidate, p) == 1:
            return candidate


def test_this_encoder_writes_what_openssl_writes() -> None:
    assert _encoded(numbers().p, numbers().q) == pair("RSA_2048")


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("d", 2, "d is not the inverse of e"),
        ("dp", 2, "dP or dQ is wrong"),
        ("dq", 2, "dP or dQ is wrong"),
        ("qinv", 1, "qInv is wrong"),
        ("n", 2, "n is not p times q"),
    ],
)
def test_each_wrong_number_is_named(name: str, change: int, reason: str) -> None:
    right = {
        "d": numbers().d,
        "dp": numbers().dmp1,
        "dq": numbers().dmq1,
        "qinv": numbers().iqmp,
        "n": numbers().public_numbers.n,
    }
    damaged = _encoded(numbers().p, numbers().q, **{name: right[name] - change})
    assert check("RSA_2048", *damaged) == reason


def test_d_has_to_be_the_smallest() -> None:
    p, q, d = numbers().p, numbers().q, numbers().d
    assert check("RSA_2048", *_encoded(p, q, d=d + lcm(p - 1, q - 1))) == "d is out of range"


def test_qinv_has_to_be_reduced() -> None:
    p, q = numbers().p, numbers().q
    assert check("RSA_2048", *_encoded(p, q, qinv=numbers().iqmp + p)) == "qInv is wrong"


def test_the_larger_prime_stands_first() -> None:
    """With all that follows from the order it is the same key, written as no OpenSSL writes it."""
    assert check("RSA_2048", *_encoded(numbers().q, numbers().p)) == "p is not the larger prime"


def test_another_exponent_is_unsound() -> None:
    p, q = (_usable(lambda: _random.getrandbits(1022) | 3 << 1022, 65539) for _ in range(2))
    assert check("RSA_2048", *_encoded(p, q, 65539)) == "e is not 65537"


def test_close_primes_are_unsound_and_the_bound_is_exact() -> None:
    """FIPS 186-5 A.1.1: |p - q| > 2^(nlen/2 - 100)."""
    p = _of_bits(1024) & ~(1 << 1021)
    p = _usable(lambda: p ^ _random.getrandbits(64))
    near = _coprime_to(p, lambda: p + (1 << 923) + _random.getrandbits(64))
    far = _coprime_to(p, lambda: p + (1 << 924) + _random.getrandbits(64) + (1 << 65))
    assert check("RSA_2048", *_encoded(near, p)) == "p and q are close"
    assert check("RSA_2048", *_encoded(far, p)) == ""


def test_unequal_primes_are_unsound() -> None:
    p, q = _of_bits(1025), _usable(lambda: _random.getrandbits(1021) | 3 << 1021)
    assert (p * q).bit_length() == 2048
    assert check("RSA_2048", *_encoded(p, _coprime_to(p, lambda: q + 2 * _random.getrandbits(64)))) == (
        "p or q has another size"
    )


def test_tags_are_of_the_primes_and_find_a_shared_one() -> None:
    p, q = numbers().p, numbers().q
    r = _coprime_to(p, lambda: _of_bits(1024))
    first, second = tags("RSA_2048", *_encoded(p, q), _TAG_KEY), tags("RSA_2048", *_encoded(p, r), _TAG_KEY)
    assert len(set(first + second)) == 3
    assert first[0] == second[0]
    assert sorted(tags("RSA_2048", *_encoded(q, p), _TAG_KEY)) == sorted(first)


@pytest.mark.parametrize("spec", MAKEABLE)
def test_tags_are_16_bytes_and_depend_on_the_key(spec: str) -> None:
    mine, theirs = tags(spec, *pair(spec), _TAG_KEY), tags(spec, *pair(spec), b"o" * 32)
    assert len(mine) == (2 if spec.startswith("RSA") else 1)
    assert {len(tag) for tag in mine} == {16}
    assert mine == tags(spec, *pair(spec), _TAG_KEY)
    assert not set(mine) & set(theirs)

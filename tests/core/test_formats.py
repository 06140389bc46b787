"""A pair in other tools' forms still is the same pair."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mlkem, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
    load_ssh_private_key,
    load_ssh_public_key,
)

from kpcache.cli.formats import render
from kpcache.client import load_private_key
from kpcache.core.specs import MAKEABLE, SPECS

_CURVES = {
    "secp256r1": ec.SECP256R1(),
    "secp384r1": ec.SECP384R1(),
    "secp521r1": ec.SECP521R1(),
    "secp256k1": ec.SECP256K1(),
}
Pairs = dict[str, tuple[bytes, bytes]]


def make_pair(name: str) -> tuple[bytes, bytes]:
    """PKCS#8 and SPKI of a new key."""
    spec = SPECS[name]
    key: Any = None
    match spec.family:
        case "rsa":
            key = rsa.generate_private_key(65537, int(spec.parameter))
        case "ec":
            key = ec.generate_private_key(_CURVES[str(spec.parameter)])
        case "ed25519":
            key = ed25519.Ed25519PrivateKey.generate()
        case "ml_kem":
            kind: Any = {768: mlkem.MLKEM768PrivateKey, 1024: mlkem.MLKEM1024PrivateKey}[int(spec.parameter)]
            key = kind.generate()
    private = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return private, spki(key.public_key())


def spki(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    # RSA_3072 and RSA_4096 take the same paths as RSA_2048, and seconds to make.
    return {name: make_pair(name) for name in MAKEABLE if name not in ("RSA_3072", "RSA_4096")}


def with_form(form: str) -> list[str]:
    return [name for name in MAKEABLE if form in SPECS[name].formats and name not in ("RSA_3072", "RSA_4096")]


@pytest.mark.parametrize("name", with_form("pem"))
def test_pem_holds_the_very_bytes(pairs: Pairs, name: str) -> None:
    private, public = pairs[name]
    pem = render("pem", private, public)
    assert pem.private is not None
    assert pem.suffixes == (".private.pem", ".public.pem")
    assert max(len(line) for line in pem.private.splitlines()) <= 64
    lines = pem.private.decode().splitlines()
    assert (lines[0], lines[-1]) == ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----")
    assert base64.b64decode("".join(lines[1:-1])) == private
    assert spki(load_pem_private_key(pem.private, None).public_key()) == public
    assert spki(load_pem_public_key(pem.public)) == public


@pytest.mark.parametrize("name", with_form("openssh"))
def test_openssh_is_the_same_key(pairs: Pairs, name: str) -> None:
    private, public = pairs[name]
    ssh = render("openssh", private, public)
    assert ssh.private is not None
    loaded: Any = load_ssh_private_key(ssh.private, None)
    assert loaded.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) == private
    assert spki(load_ssh_public_key(ssh.public)) == public
    assert ssh.suffixes[1] == ssh.suffixes[0] + ".pub"


@pytest.mark.parametrize("name", with_form("jwk"))
def test_jwk_is_the_same_key(pairs: Pairs, name: str) -> None:
    private, public = pairs[name]
    jwk = render("jwk", private, public)
    assert jwk.private is not None
    members, public_members = json.loads(jwk.private), json.loads(jwk.public)
    rebuilt = _from_jwk(members)
    assert rebuilt.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) == private
    assert public_members == {
        key: value for key, value in members.items() if key in ("kty", "crv", "x", "y", "n", "e")
    }


def _from_jwk(jwk: dict[str, str]) -> Any:
    def octets(member: str) -> bytes:
        assert "=" not in jwk[member]
        return base64.urlsafe_b64decode(jwk[member] + "==")

    def number(member: str) -> int:
        return int.from_bytes(octets(member), "big")

    if jwk["kty"] == "RSA":
        assert jwk["e"] == "AQAB"
        public = rsa.RSAPublicNumbers(number("e"), number("n"))
        p, q, d, dp, dq, qi = (number(member) for member in ("p", "q", "d", "dp", "dq", "qi"))
        return rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, public).private_key()
    if jwk["kty"] == "OKP":
        assert jwk["crv"] == "Ed25519"
        key = ed25519.Ed25519PrivateKey.from_private_bytes(octets("d"))
        assert key.public_key().public_bytes_raw() == octets("x")
        return key
    curve, size = {
        "P-256": (ec.SECP256R1(), 32),
        "P-384": (ec.SECP384R1(), 48),
        "P-521": (ec.SECP521R1(), 66),
        "secp256k1": (ec.SECP256K1(), 32),
    }[jwk["crv"]]
    assert [len(octets(member)) for member in ("x", "y", "d")] == [size] * 3
    point = ec.EllipticCurvePublicNumbers(number("x"), number("y"), curve)
    return ec.EllipticCurvePrivateNumbers(number("d"), point).private_key()


def test_coordinates_keep_their_leading_zeros() -> None:
    # One P-521 coordinate in two starts with a zero octet, since 521 bits take one bit of the first.
    for _ in range(20):
        members = json.loads(render("jwk", *make_pair("ECC_NIST_P521")).private or b"")
        assert {len(members[member]) for member in ("x", "y", "d")} == {88}


@pytest.mark.parametrize("form", ["pem", "der", "openssh", "jwk"])
def test_without_a_private_key_there_is_the_public_one(pairs: Pairs, form: str) -> None:
    private, public = pairs["ECC_NIST_P256"]
    rendered = render(form, None, public)
    assert rendered.private is None
    assert rendered.public == render(form, private, public).public


def test_a_rendered_pair_does_not_show_itself(pairs: Pairs) -> None:
    rendered = render("pem", *pairs["ECC_NIST_P256"])
    assert "BEGIN" not in repr(rendered)


@pytest.mark.parametrize("name", with_form("der"))
def test_load_private_key_takes_answers_and_bytes(pairs: Pairs, name: str) -> None:
    private, public = pairs[name]
    for source in (private, {"PrivateKeyPlaintext": private}, {"Plaintext": private}):
        assert spki(load_private_key(source).public_key()) == public


def test_load_private_key_does_not_validate_rsa_again(pairs: Pairs) -> None:
    # A key whose parts do not fit: full validation refuses it, and takes 50 ms to do so.
    good = load_private_key(pairs["RSA_2048"][0])
    assert isinstance(good, rsa.RSAPrivateKey)
    numbers = good.private_numbers()
    wrong = rsa.RSAPrivateNumbers(
        numbers.p, numbers.q, numbers.d, numbers.dmp1, numbers.dmq1, numbers.iqmp ^ 2, numbers.public_numbers
    )
    der = wrong.private_key(unsafe_skip_rsa_key_validation=True).private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )
    assert load_private_key(der)


@pytest.mark.parametrize("source", [b"", b"no key", {}, {"PrivateKeyPlaintext": b""}])
def test_what_is_no_key_is_a_value_error(source: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        load_private_key(source)

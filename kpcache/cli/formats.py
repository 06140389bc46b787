"""A key pair in the forms that other tools read.

- PEM: RFC 7468, the very bytes that were served. DER: those bytes.
- OpenSSH: the ``openssh-key-v1`` private key file and the one-line public key.
- JWK: RFC 7517; RSA and EC members RFC 7518 §6, secp256k1 RFC 8812, Ed25519 RFC 8037.
"""

import base64
import json
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521", "secp256k1": "secp256k1"}


@dataclass(frozen=True, repr=False)
class Rendered:
    """A pair in one form. ``private`` is None when the answer held no plaintext.

    ``suffixes`` of file names: private, public. ssh-keygen wants the public one to be the private plus .pub.
    """

    private: bytes | None
    public: bytes
    suffixes: tuple[str, str]


def render(form: str, private: bytes | None, public: bytes) -> Rendered:
    """``private`` PKCS#8 and ``public`` SPKI DER in ``form``: pem, der, openssh or jwk.

    The form must be one that the spec has (``Spec.formats``).
    """
    to_private, to_public = _FORMS[form]
    suffixes = (f".private.{form}", f".public.{form}") if form != "openssh" else (".openssh", ".openssh.pub")
    return Rendered(None if private is None else to_private(private), to_public(public), suffixes)


def _pem(label: str, der: bytes) -> bytes:
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


def _private_pem(der: bytes) -> bytes:
    return _pem("PRIVATE KEY", der)


def _public_pem(der: bytes) -> bytes:
    return _pem("PUBLIC KEY", der)


def _der(der: bytes) -> bytes:
    return der


def _load_private(der: bytes) -> "PrivateKeyTypes":
    from kpcache.client.keys import load_private_key

    return load_private_key(der)


def _load_public(der: bytes) -> "PublicKeyTypes":
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    return load_der_public_key(der)


def _private_openssh(der: bytes) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return _load_private(der).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def _public_openssh(der: bytes) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return _load_public(der).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n"


def _private_jwk(der: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    key = _load_private(der)
    members = _public_members(key.public_key())
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        for name, number in (
            ("d", numbers.d), ("p", numbers.p), ("q", numbers.q),
            ("dp", numbers.dmp1), ("dq", numbers.dmq1), ("qi", numbers.iqmp),
        ):  # fmt: skip
            members[name] = _base64url_number(number)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        # As long as the curve's order: RFC 7518 §6.2.2.1; for these curves it is the field's length.
        members["d"] = _base64url_number(key.private_numbers().private_value, (key.key_size + 7) // 8)
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        members["d"] = _base64url(key.private_bytes_raw())
    return _jwk(members)


def _public_jwk(der: bytes) -> bytes:
    return _jwk(_public_members(_load_public(der)))


def _public_members(key: Any) -> dict[str, str]:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": _base64url_number(numbers.n), "e": _base64url_number(numbers.e)}
    if isinstance(key, ec.EllipticCurvePublicKey):
        point, size = key.public_numbers(), (key.key_size + 7) // 8
        coordinates = {"x": _base64url_number(point.x, size), "y": _base64url_number(point.y, size)}
        return {"kty": "EC", "crv": _CURVES[key.curve.name], **coordinates}
    if isinstance(key, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": _base64url(key.public_bytes_raw())}
    raise TypeError(f"no JWK form for {type(key).__name__}")


def _jwk(members: dict[str, str]) -> bytes:
    return json.dumps(members, indent=2).encode() + b"\n"


def _base64url_number(number: int, size: int | None = None) -> str:
    """Big-endian; without ``size`` as short as it goes."""
    return _base64url(number.to_bytes(size or (number.bit_length() + 7) // 8, "big"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


_FORMS = {
    "pem": (_private_pem, _public_pem),
    "der": (_der, _der),
    "openssh": (_private_openssh, _public_openssh),
    "jwk": (_private_jwk, _public_jwk),
}

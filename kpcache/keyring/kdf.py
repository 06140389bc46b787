"""From a secret to the key that seals the keyring file; the parameters stand in the file, and are bounded.

A passphrase goes through Argon2id with RFC 9106's second recommended parameters (section 4), or through
scrypt where the installed OpenSSL lacks Argon2id. A secret that a machine made is not guessed, so HKDF
(RFC 5869) is enough for it, and costs nothing at a start.

Whoever can write the file can write parameters: beyond the bounds they are refused, so that they cannot
make a start take terabytes or days. Weak ones win nothing: the seal covers them.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from kpcache.errors import ConfigError
from kpcache.keyring.document import DocumentError

KEY_BYTES: Final = 32
SALT_BYTES: Final = 16
_HKDF_INFO: Final = b"kpcache keyring seal 1"
Kdf = dict[str, Any]

# Of each parameter the least, which a new file gets, and the most that is read: 1 GiB, and tens of seconds.
_PARAMETERS: Final[Mapping[str, Mapping[str, tuple[int, int]]]] = {
    "argon2id": {"iterations": (3, 16), "lanes": (4, 16), "memory_kib": (2**16, 2**20)},
    "scrypt": {"n": (2**17, 2**20), "r": (8, 8), "p": (1, 4)},
    "hkdf-sha256": {},
}


def fresh(*, guessable: bool, urandom: Callable[[int], bytes]) -> Kdf:
    """Parameters with a new salt; ``guessable`` is a secret that a person made up."""
    name = "hkdf-sha256" if not guessable else "argon2id" if _has_argon2id() else "scrypt"
    salt = base64.b64encode(urandom(SALT_BYTES)).decode("ascii")
    return {"name": name, "salt": salt, **_least(name)}


def derive(kdf: object, secret: bytes) -> bytes:
    """The key of 32 bytes. ``kdf`` is as a file has it: raises ``DocumentError`` if it isn't one of ours.

    Takes from nothing to seconds, and up to 1 GiB of memory. Raises ``ConfigError`` where that is not to
    be had, or the installed OpenSSL lacks the algorithm.
    """
    name, salt, numbers = _checked(kdf)
    try:
        return _algorithm(name, salt, numbers).derive(secret)
    except UnsupportedAlgorithm as error:
        raise ConfigError(
            f"keyring: cryptography's OpenSSL has no {name}; install its own wheel: "
            "pip install --force-reinstall --only-binary cryptography cryptography"
        ) from error
    except MemoryError as error:
        raise ConfigError(f"keyring: not enough memory for {name} with {numbers}") from error


def _checked(kdf: object) -> tuple[str, bytes, dict[str, int]]:
    if not isinstance(kdf, dict) or not isinstance(name := kdf.get("name"), str) or name not in _PARAMETERS:
        raise DocumentError(f"kdf is none of {', '.join(_PARAMETERS)}")
    bounds = _PARAMETERS[name]
    if kdf.keys() != {"name", "salt", *bounds}:
        raise DocumentError(f"kdf does not have exactly the parameters of {name}")
    for key, (least, most) in bounds.items():
        if type(kdf[key]) is not int or not least <= kdf[key] <= most:
            raise DocumentError(f"kdf.{key} is not a whole number from {least} to {most}")
    if (n := kdf.get("n", 1)) & (n - 1):
        raise DocumentError("kdf.n is not a power of two")
    salt = from_base64(kdf["salt"], "kdf.salt")
    if len(salt) != SALT_BYTES:
        raise DocumentError(f"kdf.salt does not have {SALT_BYTES} bytes")
    return name, salt, {key: kdf[key] for key in bounds}


def _algorithm(name: str, salt: bytes, numbers: dict[str, int]) -> Argon2id | Scrypt | HKDF:
    if name == "argon2id":
        return Argon2id(
            salt=salt,
            length=KEY_BYTES,
            iterations=numbers["iterations"],
            lanes=numbers["lanes"],
            memory_cost=numbers["memory_kib"],
        )
    if name == "scrypt":
        return Scrypt(salt=salt, length=KEY_BYTES, n=numbers["n"], r=numbers["r"], p=numbers["p"])
    return HKDF(hashes.SHA256(), KEY_BYTES, salt, _HKDF_INFO)


def _has_argon2id() -> bool:
    try:
        _algorithm(
            "argon2id", bytes(SALT_BYTES), {k: least for k, (least, _) in _PARAMETERS["argon2id"].items()}
        )
    except UnsupportedAlgorithm:
        return False
    return True


def _least(name: str) -> dict[str, int]:
    return {key: least for key, (least, _) in _PARAMETERS[name].items()}


def from_base64(text: object, where: str) -> bytes:
    """The bytes of the one spelling that they have. Raises ``DocumentError``."""
    try:
        data = base64.b64decode(text if isinstance(text, str) else "?", validate=True)
    except ValueError:
        data = b""
    if not data or base64.b64encode(data).decode("ascii") != text:
        raise DocumentError(f"{where} is not base64")
    return data

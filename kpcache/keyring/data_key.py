"""The key that seals the keyring file, drawn here and wrapped by a key that never leaves its service.

Where a file that a secret seals has the parameters of a derivation (see ``kdf``), one that AWS KMS opens
has ``name`` "aws-kms", ``wrapped`` (base64, as the service made it) and ``key_arn``, which is for people:
whom to ask for it. The seal covers all three. Who asks the service, and how, comes in as a ``Wrapper``.
"""

import base64
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from kpcache.core.contract import shown
from kpcache.errors import ConfigError
from kpcache.keyring.document import DocumentError
from kpcache.keyring.kdf import KEY_BYTES, Kdf, from_base64

NAME: Final = "aws-kms"
# CiphertextType and KeyIdType of the KMS service model.
_MAX_WRAPPED_BYTES: Final = 6144
_MAX_ARN_CHARACTERS: Final = 2048


class WrappedKey(NamedTuple):
    """A wrapped key, and the name of the key that it opens under, as the service has both."""

    blob: bytes
    key_arn: str


class Wrapper(Protocol):
    """A key at a service. Its methods block until it has answered or a deadline has passed."""

    @property
    def source(self) -> str:
        """Which key it is, for a message."""

    def wrap(self, key: bytes) -> WrappedKey:
        """``key`` wrapped, known to open again. Raises ``ConfigError`` with the cure."""

    def unwrap(self, blob: bytes) -> bytes:
        """What was wrapped. Raises ``ConfigError`` with the cure."""


def fresh(wrapper: Wrapper, urandom: Callable[[int], bytes]) -> tuple[Kdf, bytes]:
    """A new key of 32 bytes, and how the file tells of it. Raises ``ConfigError`` with the cure."""
    key = urandom(KEY_BYTES)
    wrapped = wrapper.wrap(key)
    told = {
        "name": NAME,
        "wrapped": base64.b64encode(wrapped.blob).decode("ascii"),
        "key_arn": wrapped.key_arn,
    }
    try:
        _checked(told)
    except DocumentError as error:
        # A file that no start reads again must not be written.
        raise ConfigError(f"{wrapper.source} answers what kpcache cannot use: {error}") from None
    return told, key


def opened(told: object, wrapper: Wrapper) -> bytes:
    """The key again. ``told`` is as a file has it: raises ``DocumentError`` if it isn't one of ours.

    Raises ``ConfigError`` with the cure where the service does not give it.
    """
    blob, key_arn = _checked(told)
    try:
        key = wrapper.unwrap(blob)
    except ConfigError as error:
        raise ConfigError(f"{error.message} (it was sealed under {shown(key_arn)})") from None
    if len(key) != KEY_BYTES:
        raise DocumentError(f"what {wrapper.source} opens does not have {KEY_BYTES} bytes")
    return key


def _checked(told: object) -> WrappedKey:
    if (
        not isinstance(told, dict)
        or told.get("name") != NAME
        or told.keys() != {"name", "wrapped", "key_arn"}
    ):
        raise DocumentError(f"kdf is not what {NAME} needs")
    blob = from_base64(told["wrapped"], "kdf.wrapped")
    if len(blob) > _MAX_WRAPPED_BYTES:
        raise DocumentError(f"kdf.wrapped has more than {_MAX_WRAPPED_BYTES} bytes")
    key_arn = told["key_arn"]
    if not isinstance(key_arn, str) or not 0 < len(key_arn) <= _MAX_ARN_CHARACTERS:
        raise DocumentError("kdf.key_arn is not the name of a key")
    return WrappedKey(blob, key_arn)

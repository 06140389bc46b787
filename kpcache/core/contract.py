"""What KMS asks of each request: members, types, enums, lengths; one table, read by ``validate``.

Source: KMS service model 2014-11-01 (member names, required members, enums, minimum and maximum
lengths). The wording of ``ValidationException`` follows recorded answers of AWS KMS. Two rules are
kpcache's own: unknown members are refused (a stand-in that skips ``Recipient`` answers with plaintext
meant for an enclave only), and an encryption context has a size limit, where KMS states none.

Whether a well-formed request is also *offered* is decided elsewhere: ``refuse_unoffered`` below, and
the dispatcher, which knows keys and specs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from kpcache.core.envelope import MAX_BLOB_BYTES
from kpcache.core.specs import SPECS
from kpcache.errors import InvalidGrantTokenException, UnsupportedOperationException, ValidationException

MAX_CONTEXT_ENTRIES = 64
MAX_CONTEXT_BYTES = 8192  # keys and values together, as UTF-8
_MAX_SHOWN_CHARACTERS = 128  # of a client's string in a message; an ARN has 75
_MAX_PROBLEMS = 5  # told in one message; the rest are only counted

Check = Callable[[object], str]
"""Returns "" for a value that is allowed, else the constraint that it breaks, as KMS words it."""


def shown(text: str) -> str:
    """A client's string made fit for a message or a log: printable ASCII, at most 128 characters of it."""
    cut = text[:_MAX_SHOWN_CHARACTERS].encode("unicode_escape").decode("ascii")
    return cut if len(text) <= _MAX_SHOWN_CHARACTERS else cut + "..."


def _sized(kind: type[str] | type[bytes], name: str, minimum: int, maximum: int) -> Check:
    """A string (length in characters) or a blob (in bytes)."""
    wrong_type = f"Member must be a {name}"
    too_short = f"Member must have length greater than or equal to {minimum}"
    too_long = f"Member must have length less than or equal to {maximum}"

    def check(value: object) -> str:
        if type(value) is not kind:
            return wrong_type
        if minimum <= len(value) <= maximum:
            return ""
        return too_short if len(value) < minimum else too_long

    return check


def _enum(*values: str) -> Check:
    allowed = frozenset(values)
    refusal = f"Member must satisfy enum value set: [{', '.join(values)}]"

    def check(value: object) -> str:
        return "" if type(value) is str and value in allowed else refusal

    return check


def _list_of(member: Check, maximum: int) -> Check:
    def check(value: object) -> str:
        if type(value) is not list and type(value) is not tuple:
            return "Member must be a list"
        if len(value) > maximum:
            return f"Member must have length less than or equal to {maximum}"
        return next(filter(None, map(member, value)), "")

    return check


def _boolean(value: object) -> str:
    return "" if type(value) is bool else "Member must be a boolean"


def _structure(value: object) -> str:
    return "" if type(value) is dict else "Member must be a structure"


def _context(value: object) -> str:
    """EncryptionContextType: strings to strings. KMS reads other JSON types as strings; we refuse them."""
    if type(value) is not dict:
        return "Member must be a map of strings to strings"
    if len(value) > MAX_CONTEXT_ENTRIES:
        return f"Map must have at most {MAX_CONTEXT_ENTRIES} entries"
    try:
        size = len("".join(chain(value, value.values())).encode())
    except TypeError:
        return "Map keys and values must be strings"
    except UnicodeEncodeError:
        return "Map keys and values must be valid Unicode, without lone surrogates"
    if size > MAX_CONTEXT_BYTES:
        return f"Map keys and values must have at most {MAX_CONTEXT_BYTES} bytes of UTF-8 together"
    return ""


@dataclass(frozen=True, slots=True)
class Operation:
    """The input of one operation. A member that is not required may be absent or nil."""

    checks: Mapping[str, Check]
    required: tuple[str, ...]


_KEY_ID = _sized(str, "string", 1, 2048)
_GRANT_TOKENS = _list_of(_sized(str, "string", 1, 8192), 10)
_PAIR_MEMBERS: dict[str, Check] = {
    "KeyId": _KEY_ID,
    "KeyPairSpec": _enum(*SPECS),
    "EncryptionContext": _context,
    "GrantTokens": _GRANT_TOKENS,
    "DryRun": _boolean,
}
_DECRYPT_MEMBERS: dict[str, Check] = {
    "CiphertextBlob": _sized(bytes, "blob", 1, MAX_BLOB_BYTES),
    "EncryptionContext": _context,
    "GrantTokens": _GRANT_TOKENS,
    "KeyId": _KEY_ID,
    "EncryptionAlgorithm": _enum("SYMMETRIC_DEFAULT", "RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "SM2PKE"),
    "Recipient": _structure,  # always refused, by refuse_unoffered, so its members need no look
    "DryRun": _boolean,
    "DryRunModifiers": _list_of(_enum("IGNORE_CIPHERTEXT"), 1),
}

OPERATIONS: dict[str, Operation] = {
    "GenerateDataKeyPair": Operation({**_PAIR_MEMBERS, "Recipient": _structure}, ("KeyId", "KeyPairSpec")),
    "GenerateDataKeyPairWithoutPlaintext": Operation(_PAIR_MEMBERS, ("KeyId", "KeyPairSpec")),
    # KMS does without the blob for DryRun with IGNORE_CIPHERTEXT, which is not offered here.
    "Decrypt": Operation(_DECRYPT_MEMBERS, ("CiphertextBlob",)),
    "DescribeKey": Operation({"KeyId": _KEY_ID, "GrantTokens": _GRANT_TOKENS}, ("KeyId",)),
}


def validate(method: str, data: object) -> dict[str, Any]:
    """``data`` itself, once it is known to be a sound input of ``method`` (a name in ``OPERATIONS``).

    Optional members that are nil are taken out of it, as KMS takes JSON's null for absent.
    Raises ``ValidationException``, for the caller, with up to five of the problems.
    """
    operation = OPERATIONS[method]
    if type(data) is not dict:
        raise ValidationException("1 validation error detected: The input must be a map of members")
    checks = operation.checks
    sound = True
    for name, value in data.items():
        check = checks.get(name)
        if check is None or value is None or check(value):
            sound = False
            break
    if sound:
        for name in operation.required:
            if name not in data:
                break
        else:
            return data
    return _without_nil_or_refused(operation, data)


def _without_nil_or_refused(operation: Operation, data: dict[Any, Any]) -> dict[str, Any]:
    """The unusual case, off the hot path: every problem is collected, nil members are dropped."""
    problems = [
        f"Value null at '{_kms_name(name)}' failed to satisfy constraint: Member must not be null"
        for name in operation.required
        if data.get(name) is None
    ]
    for name in [name for name, value in data.items() if value is None and name in operation.checks]:
        del data[name]
    for name, value in data.items():
        check = operation.checks.get(name)
        if check is None:
            problems.append(f"Unknown member '{shown(str(name))}'; known are {', '.join(operation.checks)}")
        elif refusal := check(value):
            problems.append(f"Value at '{_kms_name(name)}' failed to satisfy constraint: {refusal}")
    if problems:
        errors = "validation error" if len(problems) == 1 else "validation errors"
        raise ValidationException(f"{len(problems)} {errors} detected: {'; '.join(problems[:_MAX_PROBLEMS])}")
    return data


def _kms_name(member: str) -> str:
    """KMS names members in these messages with a small first letter."""
    return member[0].lower() + member[1:]


def refuse_unoffered(data: Mapping[str, Any]) -> None:
    """Refuse validated input that asks for what is not offered; never skip it silently.

    Raises ``UnsupportedOperationException`` for ``Recipient`` and ``DryRunModifiers``,
    ``InvalidGrantTokenException`` for grant tokens (local keys have no grants). For the caller.
    """
    if "Recipient" in data:
        raise UnsupportedOperationException(
            "Recipient is not offered: kpcache does not verify attestation documents"
        )
    if data.get("DryRunModifiers"):
        raise UnsupportedOperationException(
            "DryRunModifiers is not offered; use DryRun with a CiphertextBlob"
        )
    if data.get("GrantTokens"):
        raise InvalidGrantTokenException("Grant tokens are not offered: keys of this keyring have no grants")

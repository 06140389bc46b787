"""Holds a request against what KMS asks of it, and words the refusal as KMS does.

Two rules are kpcache's own: unknown members are refused (a stand-in that skips ``Recipient`` answers with
plaintext meant for an enclave only), and an encryption context has a size limit, where KMS states none.

Whether a well-formed request is also *offered* is decided elsewhere: ``refuse_unoffered`` below, and
the dispatcher, which knows keys and specs.
"""

from collections.abc import Mapping
from typing import Any

from kpcache.core.operations import OPERATIONS, Operation
from kpcache.errors import InvalidGrantTokenException, UnsupportedOperationException, ValidationException

_MAX_SHOWN_CHARACTERS = 128  # of a client's string in a message; an ARN has 75
_MAX_PROBLEMS = 5  # told in one message; the rest are only counted


def shown(text: str) -> str:
    """A client's string made fit for a message or a log: printable ASCII, at most 128 characters of it."""
    cut = text[:_MAX_SHOWN_CHARACTERS].encode("unicode_escape").decode("ascii")
    return cut if len(text) <= _MAX_SHOWN_CHARACTERS else cut + "..."


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

"""Holds a request against what KMS asks of it, and words the refusal as KMS does.

Two rules are kpcache's own: unknown members are refused (a stand-in that skips ``Recipient`` answers with
plaintext meant for an enclave only), and an encryption context has a size limit, where KMS states none.

Which refusal comes first when several apply: AWS's order is not recorded, so one was chosen, and every
operation keeps to it, from what can be told by the request alone to what takes the most looking:

 1. the request's form, options included                        ``ValidationException``
 2. what kpcache does not offer, whatever the key               ``UnsupportedOperationException``,
    (Recipient first, then grant tokens, then a spec)           ``InvalidGrantTokenException``
 3. keys named that may not be used (with rules of access),     ``AccessDeniedException``,
    or that are not there, the source's first                   ``InvalidArnException``, ``NotFoundException``
 4. an algorithm that the key does not have                     ``InvalidKeyUsageException``
 5. a blob whose key may not be used (likewise),                ``AccessDeniedException``,
    that does not open, then the state of its key, then         ``InvalidCiphertextException``, as 6,
    that its key is not the one named                           ``IncorrectKeyException``
 6. the state of the key that would wrap                        ``DisabledException``,
                                                                ``KMSInvalidStateException``
 7. no pair is given out at present (an alarm)                  ``KMSInvalidStateException``
 8. it was only a test, and all is well                         ``DryRunOperationException``
 9. only now, for a pair: the pool is dry                       ``ThrottlingException``

A daemon that stops answers ``ThrottlingException`` before all of them. Steps 1, 2, 4 and 8 are here; the
others belong to the daemon, which has the keys and the pairs.
"""

from collections.abc import Mapping
from typing import Any, Final

from kpcache.core.admin_operations import ADMIN_OPERATIONS
from kpcache.core.operations import OPERATIONS, Operation
from kpcache.core.shapes import kms_name
from kpcache.core.wire import Request
from kpcache.errors import (
    DryRunOperationException,
    InvalidGrantTokenException,
    InvalidKeyUsageException,
    UnsupportedOperationException,
    ValidationException,
)

# The one algorithm, and the key spec, of local keys.
SYMMETRIC_DEFAULT: Final = "SYMMETRIC_DEFAULT"

_OPERATIONS: Final[Mapping[str, Operation]] = {**OPERATIONS, **ADMIN_OPERATIONS}
_MAX_SHOWN_CHARACTERS = 128  # of a client's string in a message; an ARN has 75
_MAX_PROBLEMS = 5  # told in one message; the rest are only counted


def shown(text: str) -> str:
    """A client's string made fit for a message or a log: printable ASCII, at most 128 characters of it."""
    cut = text[:_MAX_SHOWN_CHARACTERS].encode("unicode_escape").decode("ascii")
    return cut if len(text) <= _MAX_SHOWN_CHARACTERS else cut + "..."


def validate(method: str, data: object) -> dict[str, Any]:
    """``data`` itself, once it is known to be a sound input of ``method``, a name in one of the two tables.

    Optional members that are nil are taken out of it, as KMS takes JSON's null for absent.
    Raises ``ValidationException``, for the caller, with up to five of the problems.
    """
    operation = _OPERATIONS[method]
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
    problems = [_null(name) for name in operation.required if data.get(name) is None]
    for name in [name for name, value in data.items() if value is None and name in operation.checks]:
        del data[name]
    for name, value in data.items():
        check = operation.checks.get(name)
        if check is None:
            problems.append(f"Unknown member '{shown(str(name))}'; known are {', '.join(operation.checks)}")
        elif broken := check(value):
            problems.append(
                f"Value at '{kms_name(name)}{broken.path}' failed to satisfy constraint: {broken.constraint}"
            )
    if problems:
        raise _refusal(problems)
    return data


def _null(name: str) -> str:
    return f"Value null at '{kms_name(name)}' failed to satisfy constraint: Member must not be null"


def _refusal(problems: list[str]) -> ValidationException:
    errors = "validation error" if len(problems) == 1 else "validation errors"
    return ValidationException(f"{len(problems)} {errors} detected: {'; '.join(problems[:_MAX_PROBLEMS])}")


def refuse_options(request: Request) -> None:
    """For a method that takes no options of kpcache's own. Raises ``ValidationException``."""
    if request.options not in (None, {}):
        raise ValidationException(f"{request.method} takes no options")


def ignores_ciphertext(data: Mapping[str, Any], key_member: str) -> bool:
    """Decrypt and ReEncrypt, validated: whether only the keys are to be looked at, and no blob.

    That is DryRun with the modifier IGNORE_CIPHERTEXT; a blob that is there is then not read. The model
    marks neither member as required, its text does: the blob always but then, and then ``key_member``.
    Raises ``ValidationException`` if that one is missing, and for a modifier without DryRun: what AWS
    answers is not recorded, and whoever meant a test must not be handed the plaintext.
    """
    ignored = bool(data.get("DryRunModifiers"))
    if ignored and not data.get("DryRun"):
        raise _refusal(
            ["Value at 'dryRunModifiers' failed to satisfy constraint: Member needs DryRun to be true"]
        )
    needed = key_member if ignored else "CiphertextBlob"
    if needed not in data:
        raise _refusal([_null(needed)])
    return ignored


def refuse_unoffered(data: Mapping[str, Any]) -> None:
    """Refuse validated input that asks for what is not offered; never skip it silently. For the caller.

    Raises ``UnsupportedOperationException`` for ``Recipient``, whether DryRun is set or not, and
    ``InvalidGrantTokenException`` for grant tokens (local keys have no grants).
    """
    if "Recipient" in data:
        raise UnsupportedOperationException(
            "Recipient is not offered: kpcache does not verify attestation documents; leave it out, or ask "
            "KMS itself"
        )
    if data.get("GrantTokens"):
        raise InvalidGrantTokenException(
            "Grant tokens are not offered: keys of this keyring have no grants; leave GrantTokens out"
        )


def require_symmetric(data: Mapping[str, Any], *members: str) -> None:
    """Raise ``InvalidKeyUsageException`` for an algorithm of asymmetric keys: there are none here.

    The model gives that error to an "encryption algorithm [...] incompatible with the type of key
    material"; the wording is the one recorded for MAC keys.
    """
    for member in members:
        algorithm = data.get(member, SYMMETRIC_DEFAULT)
        if algorithm != SYMMETRIC_DEFAULT:
            raise InvalidKeyUsageException(
                f"Algorithm {algorithm} is incompatible with key spec {SYMMETRIC_DEFAULT}."
            )


def refuse_dry_run(data: Mapping[str, Any]) -> None:
    """The end of a test: raise ``DryRunOperationException`` if ``DryRun`` is set. The wording is recorded."""
    if data.get("DryRun"):
        raise DryRunOperationException("The request would have succeeded, but the DryRun option is set.")

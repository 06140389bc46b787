"""One tree of errors; the branch says who must act.

- ``CallerError``: the request is wrong or not allowed; asking again will not help.
- ``BusyError``: nothing is wrong; try again, after ``retry_after_s`` where it is given.
- ``DependencyError``: something that kpcache needs has failed; an operator must look.
- ``InternalError``: a defect in kpcache; please report it.
- ``DaemonUnreachableError``: no daemon answered (the client's side only; it has no code on the wire).
- ``ConfigError``: settings or state on disk are wrong; the daemon does not start (exit 2).

Classes that travel are named as AWS KMS names them, each with one code on the wire: the class name.
Which exceptions each operation may raise: KMS service model 2014-11-01. ``ValidationException``,
``AccessDeniedException`` and ``ThrottlingException`` are not modelled there, yet every SDK meets them.
No message ever holds key material.
"""

from typing import Any, ClassVar


class KpcacheError(Exception):
    """The root. ``code`` is the name on the wire, ``reason`` a finer machine-readable word or None."""

    exit_code: ClassVar[int] = 1

    def __init__(
        self, message: str = "", *, reason: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.retry_after_s = retry_after_s

    @property
    def code(self) -> str:
        return type(self).__name__

    def to_wire(self) -> dict[str, Any]:
        """The error map of the wire protocol: Code, Message, and where set Reason, RetryAfterSeconds."""
        wire: dict[str, Any] = {"Code": self.code, "Message": self.message}
        if self.reason is not None:
            wire["Reason"] = self.reason
        if self.retry_after_s is not None:
            wire["RetryAfterSeconds"] = self.retry_after_s
        return wire


class CallerError(KpcacheError):
    """The caller must change the request."""


class BusyError(KpcacheError):
    """The caller may ask again."""

    exit_code = 4


class DependencyError(KpcacheError):
    """An operator must look at what kpcache depends on."""


class InternalError(KpcacheError):
    """A defect in kpcache."""


class ConfigError(KpcacheError):
    """Settings or state are wrong; the message names the place and the cure."""

    exit_code = 2


class DaemonUnreachableError(KpcacheError):
    """No trustworthy daemon answers on the socket; the message names the socket and the next step."""

    exit_code = 3


class ValidationException(CallerError):
    """A member is missing, unknown, of a wrong type, or outside its limits."""


class AccessDeniedException(CallerError):
    """The caller may not do this."""


class NotFoundException(CallerError):
    """No such key or alias."""


class DisabledException(CallerError):
    """The key is disabled."""


class InvalidKeyUsageException(CallerError):
    """The key is not of the kind that the operation needs."""


class InvalidGrantTokenException(CallerError):
    """Local keys have no grants."""


class InvalidCiphertextException(CallerError):
    """The blob is not ours, is damaged, or was made with another encryption context."""


class IncorrectKeyException(CallerError):
    """The blob was made under another key than the one named."""


class InvalidArnException(CallerError):
    """The ARN is malformed."""


class AlreadyExistsException(CallerError):
    """There is such an alias already."""


class InvalidAliasNameException(CallerError):
    """This cannot be the name of an alias."""


class InvalidMarkerException(CallerError):
    """The marker of a list is not one that an earlier part of it ended with."""


class LimitExceededException(CallerError):
    """The keyring, a key's materials or its tags would become more than kpcache keeps."""


class TagException(CallerError):
    """A tag's key or value is not allowed."""


class UnsupportedOperationException(CallerError):
    """The operation, spec or parameter is not offered."""


class DryRunOperationException(CallerError):
    """The request would have succeeded, but DryRun is set."""


class KMSInvalidStateException(CallerError):
    """The key, or the daemon (reason ``not_issuing``), is in a state that forbids this; SDKs do not retry."""


class ThrottlingException(BusyError):
    """Try again: the pool is dry, the daemon drains, or a limit is reached. SDKs retry it."""


class KeyUnavailableException(DependencyError):
    """The key cannot be used at present."""


class DependencyTimeoutException(DependencyError):
    """Something kpcache depends on did not answer in time."""


class KMSInternalException(InternalError):
    """A defect in kpcache; the daemon's log has the details."""


WIRE_CLASSES: dict[str, type[KpcacheError]] = {
    cls.__name__: cls
    for branch in (CallerError, BusyError, DependencyError, InternalError)
    for cls in branch.__subclasses__()
}


def from_wire(error: object) -> KpcacheError:
    """The exception for an error map received from a daemon. Unknown codes become ``KpcacheError``.

    Whatever arrives, this returns an exception and never raises: a client must be able to report a
    daemon newer than itself.
    """
    if not isinstance(error, dict):
        return KpcacheError("the daemon sent an error that is not a map")
    code, message = str(error.get("Code", "")), str(error.get("Message", ""))
    reason, retry_after = error.get("Reason"), error.get("RetryAfterSeconds")
    cls = WIRE_CLASSES.get(code)
    if cls is None:
        cls, message = KpcacheError, f"{code}: {message}"
    return cls(
        message,
        reason=reason if isinstance(reason, str) else None,
        retry_after_s=float(retry_after) if isinstance(retry_after, int | float) else None,
    )

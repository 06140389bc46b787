"""The keyring: in the daemon that runs, through its socket for administration; or, for a few commands and
while none runs, the file itself.

The state folder's lock keeps the two apart. Between "no daemon answers" and taking the lock one may have
started, or one that stops has closed its sockets and not yet let go: then the lock is held, and the caller
is told to try again.
"""

import argparse
import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kpcache.client.address import find_socket
from kpcache.client.connection import Connection, ConnectionLostError
from kpcache.errors import AccessDeniedException, ConfigError, DaemonUnreachableError, from_wire

if TYPE_CHECKING:
    from kpcache.core.settings import Config

_TIMEOUT_S = 30.0
# Those that clients have too go by KMS's bare names.
_CLIENT_METHODS = frozenset({"DescribeKey"})


class Keyring(Protocol):
    """What answers KMS's operations on keys."""

    def call(self, method: str, members: Mapping[str, Any]) -> dict[str, Any]:
        """KMS's result. Raises ``KpcacheError``, with KMS's own classes where KMS has them."""


@dataclass(frozen=True)
class _Place:
    """``config`` is None where only a socket was named: which state folder its daemon has is not known."""

    socket: str
    config: "Config | None"

    @property
    def admin_socket(self) -> str:
        return str(Path(self.socket).with_name("admin.sock"))


class _Running:
    """The daemon. A request is sent once: a change must not be made twice because an answer was lost."""

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection = connection
        self._path = path

    def call(self, method: str, members: Mapping[str, Any]) -> dict[str, Any]:
        name = method if method in _CLIENT_METHODS else f"kpcache.{method}"
        try:
            error, result = self._connection.call(name, [dict(members)], _TIMEOUT_S)
        except (ConnectionLostError, DaemonUnreachableError) as lost:  # broke off, or took too long
            raise DaemonUnreachableError(
                f"no answer from the daemon on {self._path} ({lost}): whether this was done is not known; "
                "look with kpcache keyring list or kpcache status before you repeat it"
            ) from lost
        if error is not None:
            raise from_wire(error)
        answer: dict[str, Any] = result
        return answer


@contextlib.contextmanager
def running(args: argparse.Namespace) -> Iterator[Keyring]:
    """The daemon's keyring. Raises ``DaemonUnreachableError`` (3) without one."""
    place = _place(args)
    with _connected(place) as keyring:
        if keyring is None:
            raise DaemonUnreachableError(
                f"no daemon on {place.socket}: start it (kpcache serve), or name its socket "
                "(--socket PATH) or its settings (--config FILE)"
            )
        yield keyring


@contextlib.contextmanager
def running_or_stopped(args: argparse.Namespace, *, may_begin: bool = False) -> Iterator[Keyring]:
    """The daemon's keyring, or the file while no daemon runs; ``may_begin``: also where none is yet.

    Raises ``DaemonUnreachableError`` (3) when there is no daemon and no keyring, or it is not known where
    that would be; ``TryAgainError`` (4) when somebody else has the state folder at this moment.
    """
    place = _place(args)
    with _connected(place) as keyring:
        if keyring is not None:
            yield keyring
            return
    if place.config is None:
        raise DaemonUnreachableError(
            f"no daemon on {place.socket}: start it, or, to work on the keyring of a stopped daemon, "
            "name its settings (--config FILE): they say where its state folder is"
        )
    from kpcache.cli.keyring.stopped import stopped

    with stopped(place.config, place.socket, may_begin=may_begin) as file:
        yield file


def all_of(keyring: Keyring, method: str, members: Mapping[str, Any], member: str) -> list[dict[str, Any]]:
    """Every entry of a list that comes in pages."""
    entries: list[dict[str, Any]] = []
    page = keyring.call(method, members)
    while True:
        entries += page[member]
        if not page.get("Truncated"):
            return entries
        page = keyring.call(method, {**members, "Marker": page["NextMarker"]})


def _place(args: argparse.Namespace) -> _Place:
    named = args.socket or os.environ.get("KPCACHE_SOCKET")
    if named and not args.config:
        return _Place(os.path.abspath(named), None)
    from kpcache.cli.config_file import load_file

    config = load_file(args.config, socket=args.socket)
    socket = str(config.daemon.socket) if args.config else find_socket(None, os.environ)
    return _Place(os.path.abspath(socket), config)


def keep_unreadable() -> None:
    """Let no other process of this user look into this one, nor a core file be left of it: it is about to
    hold keys. Raises ``ConfigError``."""
    from kpcache.worker.process import StartError, protect

    try:
        protect("kpcache")
    except StartError as error:
        raise ConfigError(f"this process cannot be kept from being read by others: {error}") from error


@contextlib.contextmanager
def _connected(place: _Place) -> Iterator[_Running | None]:
    """None if that daemon does not run."""
    path = place.admin_socket
    connection: Connection | None
    try:
        # If nobody answers here, the daemon that was named is stopped, and an admin.sock that is answered is
        # another's, which has its sockets in the same folder: that name is the same for all.
        Connection.open(place.socket, _TIMEOUT_S, os.environ).close()
        connection = Connection.open(path, _TIMEOUT_S, os.environ)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        connection = None
    except PermissionError as error:
        raise AccessDeniedException(
            f"{path} is for root and for the user that the daemon runs as, and for the members of "
            "daemon.admin_socket_group where that is set: run this as one of them"
        ) from error
    except OSError as error:
        raise DaemonUnreachableError(
            f"the daemon on {path} cannot be reached: {error.strerror or error}"
        ) from error
    if connection is None:
        yield None
        return
    with contextlib.closing(connection):
        yield _Running(connection, path)

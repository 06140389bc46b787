"""The connections of one client, shared by its threads: each is lent to one call at a time."""

import os
import threading
import time
import weakref
from collections.abc import Mapping

from kpcache.client.address import find_socket
from kpcache.client.connection import Connection
from kpcache.errors import DaemonUnreachableError

# While a daemon restarts: first try soon (a socket unit or a quick restart), never more than 10 a second.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.1


class ConnectionPool:
    """At most ``max_connections`` open; a call that finds all lent waits for one.

    Last in, first out, so that a quiet client keeps to one warm connection. A forked child shares no
    socket with its parent: two processes that read one stream would take each other's private keys.
    """

    def __init__(
        self, socket_path: str | None, environ: Mapping[str, str], *, max_connections: int, reconnect_s: float
    ) -> None:
        self._explicit = socket_path
        self._environ = environ
        self._max_connections = max_connections
        self._reconnect_s = reconnect_s
        self.path: str | None = None
        self.closed = False
        self._start_afresh()
        _pools.add(self)

    def take(self, deadline: float) -> Connection:
        """A connection for one call. ``deadline``: monotonic seconds. Raises ``DaemonUnreachableError``."""
        with self._lock:
            while not self._idle:
                if self.closed:
                    raise RuntimeError("the client is closed")
                if len(self._open) + self._opening < self._max_connections:
                    self._opening += 1
                    break
                if not self._wait_for_freed(deadline):
                    raise DaemonUnreachableError(
                        f"all {self._max_connections} connections of this client stayed busy: "
                        "raise max_connections, or make fewer calls at once"
                    )
            else:
                return self._idle.pop()
        return self._open_another(deadline)

    def give(self, connection: Connection) -> None:
        """Back from a call that went well."""
        with self._lock:
            if self.closed or connection not in self._open:
                self._forget(connection)
            else:
                self._idle.append(connection)
            if self._waiting:  # asked first: notify() alone costs as much as the rest of this method
                self._freed.notify()

    def drop(self, connection: Connection) -> None:
        """Back from a call that did not: never used again."""
        with self._lock:
            self._forget(connection)
            self._freed.notify()

    def drop_idle(self) -> None:
        """One was found dead; the others are likely as old as it."""
        with self._lock:
            while self._idle:
                self._forget(self._idle.pop())
            self._freed.notify_all()

    def close(self) -> None:
        self.closed = True
        self.drop_idle()

    def _wait_for_freed(self, deadline: float) -> bool:
        self._waiting += 1
        try:
            return self._freed.wait(deadline - time.monotonic())
        finally:
            self._waiting -= 1

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        connection.close()

    def _open_another(self, deadline: float) -> Connection:
        connection = None
        try:
            connection = self._connect(deadline)
        finally:
            with self._lock:
                self._opening -= 1
                if connection is None:
                    self._freed.notify()
                else:
                    self._open.add(connection)
        return connection

    def _connect(self, deadline: float) -> Connection:
        # Once a daemon was met on a path this client stays with it: in the moment of a restart, a
        # fall-back to another daemon would wrap keys under another keyring. Never met: no waiting.
        path = self.path or find_socket(self._explicit, self._environ)
        now = time.monotonic()
        give_up = min(deadline, now + self._reconnect_s) if self.path else now
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                connection = Connection.open(path, max(deadline - now, 0.001), self._environ)
            except OSError as error:
                now = time.monotonic()
                if now >= give_up or isinstance(error, PermissionError):
                    raise DaemonUnreachableError(_why_unreachable(path, error)) from error
            else:
                self.path = path
                return connection
            time.sleep(min(pause_s, max(give_up - now, 0)))
            now = time.monotonic()
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._opening = 0
        self._waiting = 0

    def after_fork_in_child(self) -> None:
        """Close the inherited sockets; the lock may be held by a thread that does not exist here."""
        for connection in self._open:
            connection.close()
        self._start_afresh()


def _why_unreachable(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"no daemon on {path}: no such socket. Start one (kpcache serve), or name its socket"
    if isinstance(error, ConnectionRefusedError):
        return f"no daemon on {path}: the socket is there, but nobody listens. Start it again (kpcache serve)"
    if isinstance(error, PermissionError):
        return f"no access to {path}: ask for membership in the group that owns it"
    if isinstance(error, BlockingIOError):
        return f"the daemon on {path} does not accept connections; see its log"
    return f"no daemon on {path}: {error.strerror or error}"


_pools: "weakref.WeakSet[ConnectionPool]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        pool.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)

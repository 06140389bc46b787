"""What the daemon takes possession of at its start: the state folder, and the sockets it listens on."""

import errno
import fcntl
import grp
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kpcache.errors import ConfigError

_BACKLOG = 4096  # a burst of connections waits in the kernel, which caps this at net.core.somaxconn


@contextmanager
def locked_folder(state_dir: Path) -> Iterator[None]:
    """Hold the state folder (made 0700 if missing): two daemons on one keyring and ledger would each
    believe that they alone know what was handed out. Raises ``ConfigError``."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(
            f"daemon.state_dir: {state_dir} cannot be used ({error.strerror}); "
            "make it a folder that this user can write, or set daemon.state_dir to one"
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ConfigError(
            f"daemon.state_dir: another kpcache daemon uses {state_dir}; stop it, or give this one "
            "its own daemon.state_dir and daemon.socket"
        ) from error
    finally:
        os.close(fd)


def listen(path: Path, mode: int, group: str) -> socket.socket:
    """A non-blocking listening Unix socket at ``path``, in place of one that nobody answers on.

    Raises ``ConfigError`` when another program answers there, or the path cannot be used.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        gid = grp.getgrnam(group).gr_gid if group else -1
        _remove_stale(path)
        _bind(sock, path, mode, gid)
    except KeyError:
        sock.close()
        raise ConfigError(
            f"daemon.socket_group: there is no group {group!r:.60}; create it or leave it empty"
        ) from None
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"daemon.socket: cannot listen on {path} ({error.strerror or error}); "
            "check the folder's permissions, or set daemon.socket (at most 107 bytes)"
        ) from error
    sock.setblocking(False)
    return sock


def _bind(sock: socket.socket, path: Path, mode: int, gid: int) -> None:
    """Listen at ``path``, closed to all until owner and mode are right: a client cannot slip in between."""
    previous = os.umask(0o777)
    try:
        sock.bind(str(path))
    finally:
        os.umask(previous)
    try:
        if gid >= 0:
            os.chown(path, -1, gid)
        path.chmod(mode)
        sock.listen(_BACKLOG)
    except OSError:
        # Left with mode 0, it could not be told from a living daemon's by this user's next start.
        path.unlink(missing_ok=True)
        raise


def _remove_stale(path: Path) -> None:
    """Remove the socket of a daemon that died. The state folder's lock is ours already, so whoever still
    answers is a daemon of another state folder, and anything but a socket is not ours to remove."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EEXIST, "there is something else than a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
    raise OSError(errno.EADDRINUSE, "another daemon answers there")


def close_listener(sock: socket.socket, path: Path) -> None:
    """Remove the socket file, then stop listening: in this order nobody else's file can be removed.

    May be called again; then it does nothing.
    """
    if sock.fileno() >= 0:
        with suppress(OSError):
            path.unlink()
        sock.close()

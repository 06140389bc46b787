"""What the daemon takes possession of at its start: the state folder, and the sockets it listens on."""

import errno
import fcntl
import grp
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from weakref import WeakKeyDictionary

from kpcache.errors import ConfigError
from kpcache.keyring.files import check_owner_and_mode, make_folder

_BACKLOG = 4096  # a burst of connections waits in the kernel, which caps this at net.core.somaxconn

# The device and inode of each listening socket's file. Beside the sockets: trio takes no subclass of them.
_files: WeakKeyDictionary[socket.socket, tuple[int, int]] = WeakKeyDictionary()


class FolderInUseError(ConfigError):
    """Another process holds the state folder."""


@contextmanager
def locked_folder(state_dir: Path) -> Iterator[None]:
    """Hold the state folder (made 0700 if missing): for a daemon, or a command that works on the keyring
    while none runs. Two of them would each write over what the other did.

    Raises ``ConfigError``; while another process holds it, ``FolderInUseError``.
    """
    try:
        make_folder(state_dir)
        fd = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(
            f"daemon.state_dir: {state_dir} cannot be used ({error.strerror}); "
            "make it a folder that this user can write, or set daemon.state_dir to one"
        ) from error
    with ExitStack() as stack:
        stack.callback(os.close, fd)
        _lock(fd, state_dir)
        _lock_folder_itself(state_dir, stack)
        yield


def _lock_folder_itself(state_dir: Path, stack: ExitStack) -> None:
    """So that two keep apart also where the lock's file was removed and made anew: a lock is on the file, not
    on its name. Only where nobody else can open the folder: whoever can could hold this lock for ever."""
    with suppress(OSError):  # some file systems lock no folders; there the lock's file must do
        fd = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        if stat.S_IMODE(os.fstat(fd).st_mode) & 0o077 == 0 and not _acquired(fd):
            raise _in_use(state_dir)


def _acquired(fd: int) -> bool:
    """Whether the lock is ours now, and not another one's. Raises ``OSError`` where there are no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock(fd: int, state_dir: Path) -> None:
    try:
        if not _acquired(fd):
            raise _in_use(state_dir)
    except OSError as error:
        raise ConfigError(
            f"daemon.state_dir: {state_dir} cannot be locked ({error.strerror}); "
            "set daemon.state_dir to a folder on a local disk"
        ) from error


def _in_use(state_dir: Path) -> FolderInUseError:
    return FolderInUseError(
        f"daemon.state_dir: another kpcache process uses {state_dir}, a daemon or a keyring command; "
        "stop it or let it finish; for a second daemon set its own daemon.state_dir, daemon.runtime_dir and "
        "daemon.socket"
    )


def listen(
    path: Path,
    mode: int,
    group: str,
    setting: str = "daemon.socket",
    group_key: str = "daemon.socket_group",
) -> socket.socket:
    """A non-blocking listening Unix socket at ``path``, which ``setting`` gave, in place of one that nobody
    answers on.

    It is bound under a temporary name and takes its own only when it listens, with owner and mode right:
    no client slips in before that, and a kill at any step leaves nothing that blocks the next start.
    Raises ``ConfigError`` when another program answers there, the path cannot be used, or others could
    put a socket of theirs in its place. ``group_key`` is the setting that ``group`` is from.
    """
    try:
        gid = grp.getgrnam(group).gr_gid if group else -1
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _require_own_folder(path.parent, setting)
        with _temporary_name(path) as temporary:
            _require_unanswered(path)
            return _bind(temporary, path, mode, gid)
    except KeyError:
        raise ConfigError(
            f"{group_key}: there is no group {group!r:.60}; create it or leave it empty"
        ) from None
    except OSError as error:
        cure = f"check the folder's permissions, or set {setting} (at most 107 bytes)"
        if error.errno == errno.EPERM and group:  # a folder's permissions would be EACCES
            cure = f"make the daemon's user a member of group {group!r:.60}, or leave {group_key} empty"
        if error.errno == errno.EADDRINUSE:
            cure = (
                f"give each daemon a folder of its own for its sockets ({setting}; admin.sock is there too)"
            )
        raise ConfigError(
            f"{setting}: cannot listen on {path} ({error.strerror or error}); {cure}"
        ) from error


def _require_own_folder(folder: Path, setting: str) -> None:
    status = folder.stat()
    # With the sticky bit, as in /tmp, nobody can remove or rename what is another's.
    forbidden = 0 if status.st_mode & stat.S_ISVTX else 0o022
    try:
        check_owner_and_mode(status, folder, forbidden=forbidden, cure="go-w")
    except ConfigError as error:
        raise ConfigError(
            f"{setting}: others could put their own socket in the place of the daemon's; "
            f"set {setting} to a path in another folder, or mend this one: {error.message}"
        ) from None


@contextmanager
def _temporary_name(path: Path) -> Iterator[Path]:
    """A name beside ``path``, no longer than it, for one program at a time: whoever finds a socket there
    knows that its maker is dead. Nothing is left of it at the end."""
    last = "~" if not path.name.endswith("~") else "-"
    temporary = path.with_name(path.name[:-1] + last)
    lock = path.with_name(f".{temporary.name}.lock")
    with ExitStack() as stack:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        stack.callback(os.close, fd)
        if not _is_locked(fd, lock):
            raise OSError(errno.EADDRINUSE, "another daemon is starting there")
        stack.callback(lock.unlink)
        if _is_socket(temporary):
            temporary.unlink()
        stack.callback(temporary.unlink, missing_ok=True)
        yield temporary


def _is_locked(fd: int, lock: Path) -> bool:
    """Whether we hold the lock now."""
    try:
        # Its last holder may have removed it since it was opened; then it keeps nobody out.
        return _acquired(fd) and os.path.samestat(os.fstat(fd), lock.lstat())
    except FileNotFoundError:
        return False


def _is_socket(path: Path) -> bool:
    """False if there is nothing; anything else is not ours to touch: raises ``OSError``."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, f"there is something else than a socket at {path.name}")
    return True


def _require_unanswered(path: Path) -> None:
    """Refuse to take the place of a living daemon. The state folder's lock is ours already, so whoever
    answers is a daemon of another state folder."""
    if not _is_socket(path):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except PermissionError as error:
            raise OSError(
                error.errno, "its mode keeps us from asking who listens; if nobody does, remove it"
            ) from error
    raise OSError(errno.EADDRINUSE, "another daemon answers there")


def _bind(temporary: Path, path: Path, mode: int, gid: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        previous = os.umask(0o777)
        try:
            sock.bind(str(temporary))
        finally:
            os.umask(previous)
        if gid >= 0:
            os.chown(temporary, -1, gid)
        temporary.chmod(mode)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
        _files[sock] = _identity(temporary)
        temporary.rename(path)
    except OSError:
        sock.close()
        raise
    return sock


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def close_listener(sock: socket.socket, path: Path) -> None:
    """Remove the socket's file unless it is another's by now, then stop listening: in this order no
    successor finds nobody answering and puts its file there just before the removal.

    May be called again; then it does nothing.
    """
    if sock.fileno() >= 0:
        with suppress(OSError):
            if _identity(path) == _files.get(sock):
                path.unlink()
        sock.close()

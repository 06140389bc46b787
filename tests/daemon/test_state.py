"""One daemon to a state folder; a dead daemon's socket is replaced, and nothing else ever is."""

import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest

from kpcache.daemon.state import FolderInUseError, close_listener, listen, locked_folder
from kpcache.errors import ConfigError

# Ends without a word after a step of listen().
KILLED_AFTER = """
import grp, os, pathlib, socket, sys
from kpcache.daemon.state import listen

step = sys.argv[1]
owner = os if step == "chown" else pathlib.Path if step in ("chmod", "rename") else socket.socket
original = getattr(owner, step)

def last(*args):
    original(*args)
    os._exit(9)

setattr(owner, step, last)
listen(pathlib.Path(sys.argv[2]), 0o600, grp.getgrgid(os.getgid()).gr_name)
"""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listening(stack: ExitStack, path: Path, mode: int = 0o600, group: str = "") -> socket.socket:
    return stack.enter_context(listen(path, mode, group))


def refusal(path: Path, group: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        listen(path, 0o600, group).close()
    return caught.value.message


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# --- the state folder


def test_a_missing_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "state"
    with locked_folder(folder):
        assert mode_of(folder) == 0o700
        assert mode_of(folder / "lock") == 0o600


def test_a_second_daemon_is_refused_whether_in_this_process_or_another(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom kpcache.daemon.state import locked_folder\n"
        f"with locked_folder(pathlib.Path({str(tmp_path)!r})):\n    pass\n"
    )
    with locked_folder(tmp_path):
        with pytest.raises(ConfigError, match="another kpcache process"), locked_folder(tmp_path):
            pass
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "another kpcache process" in other.stderr
    subprocess.run([sys.executable, "-c", code], check=True)  # the lock went with its holder


def test_a_lock_held_by_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys\nfrom kpcache.daemon.state import locked_folder\n"
        f"with locked_folder(pathlib.Path({str(tmp_path)!r})):\n"
        "    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError), locked_folder(tmp_path):
            pass
        holder.kill()
    with locked_folder(tmp_path):
        pass


def test_a_lock_whose_file_was_removed_still_keeps_a_second_one_out(tmp_path: Path) -> None:
    """Of two that write, each would lose what the other has acknowledged."""
    folder = tmp_path / "state"
    with locked_folder(folder):
        (folder / "lock").unlink()
        with pytest.raises(FolderInUseError), locked_folder(folder):
            pass
    with locked_folder(folder):
        pass


@pytest.mark.parametrize(("mode", "is_kept_out"), [(0o700, True), (0o750, False), (0o701, False)])
def test_nobody_else_can_keep_a_daemon_from_its_folder(tmp_path: Path, mode: int, is_kept_out: bool) -> None:
    """Whoever can open a folder can lock it: the lock on the folder counts where nobody else can."""
    tmp_path.chmod(mode)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(FolderInUseError) if is_kept_out else nullcontext(), locked_folder(tmp_path):
            pass
    finally:
        os.close(fd)


def test_a_file_system_that_locks_files_only_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EBADF, "Bad file descriptor")
        original(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked_folder(tmp_path), pytest.raises(FolderInUseError), locked_folder(tmp_path):
        pass


def test_an_error_of_the_daemon_itself_is_not_taken_for_a_lock_held_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError), locked_folder(tmp_path):
        raise BlockingIOError(errno.EAGAIN, "of the body")


def test_a_file_system_without_locks_is_refused_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    cure = r"daemon\.state_dir: .* cannot be locked \(No locks available\); .* a folder on a local disk"
    with pytest.raises(ConfigError, match=cure), locked_folder(tmp_path):
        pass


def test_a_folder_is_durable_before_anything_is_put_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    original = os.fsync

    def fsync(fd: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")))
        original(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    folder = tmp_path / "a" / "state"
    with locked_folder(folder):
        assert set(synced) == {tmp_path, tmp_path / "a"}
    synced.clear()
    with locked_folder(folder):  # whoever made it may have been killed before the sync
        assert synced == [tmp_path / "a"]


def test_a_folder_below_one_that_cannot_be_synced_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    with locked_folder(tmp_path):
        pass
    with pytest.raises(ConfigError, match="Invalid argument"), locked_folder(tmp_path / "made"):
        pass


def test_a_lock_that_is_a_link_or_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "lock").symlink_to(tmp_path / "target")
    for folder in (tmp_path, tmp_path / "target"):
        with pytest.raises(ConfigError, match=r"daemon\.state_dir"), locked_folder(folder):
            pass


# --- sockets


def test_a_socket_has_its_mode_whatever_the_umask(tmp_path: Path, stack: ExitStack) -> None:
    for umask in (0, 0o077, 0o777):
        previous = os.umask(umask)
        try:
            path = tmp_path / f"s{umask}"
            listening(stack, path, mode=0o660)
            assert os.umask(umask) == umask  # it is put back
        finally:
            os.umask(previous)
        assert mode_of(path) == 0o660


def test_it_is_closed_to_all_until_its_owner_and_mode_are_right(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    original = Path.chmod

    def chmod(path: Path, mode: int) -> None:
        modes.append(mode_of(path))
        original(path, mode)

    monkeypatch.setattr(Path, "chmod", chmod)
    listening(stack, tmp_path / "s", mode=0o666)
    assert modes == [0]


def test_it_listens_without_blocking_in_a_folder_made_for_it(tmp_path: Path, stack: ExitStack) -> None:
    path = tmp_path / "run" / "s"
    listener = listening(stack, path)
    with pytest.raises(BlockingIOError):
        listener.accept()
    client = stack.enter_context(socket.socket(socket.AF_UNIX))
    client.connect(str(path))
    listener.accept()[0].close()


def test_a_dead_daemons_socket_is_replaced(tmp_path: Path, stack: ExitStack) -> None:
    path = tmp_path / "s"
    listen(path, 0o600, "").close()
    assert path.exists()
    listening(stack, path)
    stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))


@pytest.mark.parametrize("step", ["bind", "chown", "chmod", "listen", "rename"])
def test_a_kill_at_any_step_leaves_nothing_that_blocks_the_next_start(
    tmp_path: Path, stack: ExitStack, step: str
) -> None:
    """Nor is there ever a file at the path on which nobody listens, with a mode that is not the one."""
    path = tmp_path / "s"
    done = subprocess.run([sys.executable, "-c", KILLED_AFTER, step, str(path)], check=False)
    assert done.returncode == 9
    assert path.exists() == (step == "rename")
    listening(stack, path)
    assert mode_of(path) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["s"]


def test_of_two_that_start_at_once_the_second_touches_nothing(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, told = tmp_path / "s", []
    original = Path.chmod

    def chmod(file: Path, mode: int) -> None:
        monkeypatch.setattr(Path, "chmod", original)
        told.append(refusal(path))  # the other one, while the first has bound and does not listen yet
        original(file, mode)

    monkeypatch.setattr(Path, "chmod", chmod)
    listening(stack, path)
    assert "another daemon is starting there" in told[0]
    stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
    assert [each.name for each in tmp_path.iterdir()] == ["s"]


def test_a_lock_that_its_holder_has_just_removed_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        original(fd, operation)
        Path(os.readlink(f"/proc/self/fd/{fd}")).unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    assert "another daemon is starting there" in refusal(tmp_path / "s")


def test_a_socket_that_cannot_be_asked_is_left_and_the_cure_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made up, since root may connect to everything."""
    path = tmp_path / "s"
    listen(path, 0o600, "").close()

    def connect(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", connect)
    assert "if nobody does, remove it" in refusal(path)
    assert path.exists()


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_in_which_others_could_replace_the_socket_is_refused(
    tmp_path: Path, stack: ExitStack, mode: int
) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    folder.chmod(mode)
    cure = refusal(folder / "s").partition("run: ")[2]
    assert list(folder.iterdir()) == []
    subprocess.run(["/bin/sh", "-c", cure], check=True)
    listening(stack, folder / "s")


def test_a_folder_like_tmp_is_accepted(tmp_path: Path, stack: ExitStack) -> None:
    tmp_path.chmod(0o1777)
    listening(stack, tmp_path / "s")


@pytest.mark.parametrize("sticky", [0, stat.S_ISVTX])
def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sticky: int
) -> None:
    """Its owner may replace what is in it, sticky or not."""
    tmp_path.chmod(0o755 | sticky)
    monkeypatch.setattr(os, "geteuid", lambda: 4243)
    original = Path.stat

    def owned(path: Path, **options: bool) -> os.stat_result:
        fields: list[Any] = list(original(path, **options))
        fields[stat.ST_UID] = 4242
        return os.stat_result(fields)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", owned)
        assert "owned by uid 4242, neither ours (4243) nor root" in refusal(tmp_path / "s")


def test_a_path_of_107_bytes_is_not_too_long(tmp_path: Path, stack: ExitStack) -> None:
    """The temporary name must not need more than the name that the settings allow."""
    listening(stack, tmp_path / ("x" * (107 - len(str(tmp_path)) - 1)))


def test_a_living_daemons_socket_is_not(tmp_path: Path, stack: ExitStack) -> None:
    path = tmp_path / "s"
    listening(stack, path)
    inode = path.lstat().st_ino
    told = refusal(path)
    assert "another daemon answers there" in told
    assert "give each daemon a folder of its own for its sockets" in told
    assert "permissions" not in told
    assert path.lstat().st_ino == inode


@pytest.mark.parametrize("what", ["file", "folder", "link to a socket", "link to nowhere"])
def test_anything_else_at_its_path_is_not_ours_to_remove(tmp_path: Path, what: str) -> None:
    path, other = tmp_path / "s", tmp_path / "other"
    match what:
        case "file":
            path.touch()
        case "folder":
            path.mkdir()
        case "link to a socket":
            listen(other, 0o600, "").close()
            path.symlink_to(other)
        case _:
            path.symlink_to(other)
    before = path.lstat()
    assert "something else than a socket" in refusal(path)
    assert path.lstat() == before


def test_what_cannot_be_listened_on_is_refused_with_the_cure_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "at most 107 bytes" in refusal(tmp_path / ("x" * 200))
    assert "daemon.socket" in refusal(tmp_path / "file" / "s")
    assert "no group 'nobody-has-this'" in refusal(tmp_path / "s", group="nobody-has-this")
    with pytest.raises(ConfigError, match=r"daemon\.admin_socket_group: there is no group 'nobody-has-this'"):
        listen(tmp_path / "s", 0o660, "nobody-has-this", group_key="daemon.admin_socket_group").close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_group_that_may_not_be_given_leaves_no_socket_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket left with mode 0 would keep an ordinary user's next start from seeing that it is stale."""

    def chown(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", chown)
    assert "Operation not permitted" in refusal(tmp_path / "s", group="root")
    assert list(tmp_path.iterdir()) == []


def test_closing_removes_the_file_once_and_never_anothers(tmp_path: Path, stack: ExitStack) -> None:
    path = tmp_path / "s"
    mine = listening(stack, path)
    close_listener(mine, path)
    assert not path.exists()
    close_listener(mine, path)
    listening(stack, path)
    close_listener(mine, path)
    assert path.exists()


def test_closing_leaves_a_file_that_took_the_place_of_ours(tmp_path: Path, stack: ExitStack) -> None:
    path = tmp_path / "s"
    mine = listening(stack, path)
    path.unlink()  # somebody tidied up, and started another
    listening(stack, path)
    close_listener(mine, path)
    stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))


def test_a_group_that_this_user_may_not_give_it_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chown(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", chown)
    assert "make the daemon's user a member of group 'root', or leave daemon.socket_group empty" in refusal(
        tmp_path / "s", group="root"
    )

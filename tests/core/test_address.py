"""Where the client looks for the daemon, and whom it believes there."""

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from kpcache.client import address
from kpcache.client.address import SYSTEM_SOCKET, find_socket, why_not_trusted

SERVICE, OWN, STRANGER = 991, 1000, 1666
LINKS = {"/tmp/k": "/home/stranger", "/srv/k": "/tmp/x"}
SOCKET = "/run/kpcache/kpcache.sock"


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """A file system of folders: path to (owner, mode). We are uid 1000; LINKS are links."""
    folders = {"/": (0, 0o755), "/run": (0, 0o755), "/run/kpcache": (SERVICE, 0o755)}

    def resolve(path: str) -> str:
        folder, name = os.path.split(path)
        return os.path.join(LINKS.get(folder, folder), name)

    def look(path: str) -> SimpleNamespace:
        if path not in folders:
            raise FileNotFoundError(path)
        owner, mode = folders[path]
        return SimpleNamespace(st_uid=owner, st_mode=stat.S_IFDIR | mode)

    paths = SimpleNamespace(dirname=os.path.dirname, abspath=os.path.abspath, realpath=resolve)
    monkeypatch.setattr(
        "kpcache.client.address.os", SimpleNamespace(stat=look, geteuid=lambda: OWN, path=paths)
    )
    return folders


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize("uid", [0, OWN, SERVICE])
def test_root_ourselves_and_the_folders_owner_are_believed(uid: int) -> None:
    assert why_not_trusted(SOCKET, uid, {}) == ""


@pytest.mark.usefixtures("folders")
def test_a_stranger_is_not_unless_named() -> None:
    reason = why_not_trusted(SOCKET, STRANGER, {})
    assert str(STRANGER) in reason
    assert str(OWN) in reason
    assert why_not_trusted(SOCKET, STRANGER, {"KPCACHE_SERVER_UID": str(STRANGER)}) == ""
    assert why_not_trusted(SOCKET, STRANGER, {"KPCACHE_SERVER_UID": str(STRANGER + 1)})


def test_the_overflow_uid_is_nobody(folders: dict[str, tuple[int, int]]) -> None:
    folders["/run/kpcache"] = (65534, 0o755)
    assert why_not_trusted(SOCKET, 65534, {"KPCACHE_SERVER_UID": "65534"})


@pytest.mark.parametrize("above", [(0, 0o1777), (0, 0o775), (STRANGER, 0o755), (OWN, 0o755)])
def test_the_folders_owner_counts_only_below_folders_of_root(
    folders: dict[str, tuple[int, int]], above: tuple[int, int]
) -> None:
    folders["/run"] = above
    assert why_not_trusted(SOCKET, SERVICE, {})


def test_a_link_does_not_lend_its_targets_folders(
    folders: dict[str, tuple[int, int]],
) -> None:
    # /tmp/k is anyone's link to a stranger's home, where every folder above is root's.
    folders |= {"/tmp": (0, 0o1777), "/tmp/k": (STRANGER, 0o755), "/home": (0, 0o755)}
    folders["/home/stranger"] = (STRANGER, 0o755)
    assert why_not_trusted("/home/stranger/kpcache.sock", STRANGER, {}) == ""
    assert why_not_trusted("/tmp/k/kpcache.sock", STRANGER, {})


def test_a_link_of_roots_does_not_lend_its_own_folders(folders: dict[str, tuple[int, int]]) -> None:
    folders |= {"/srv": (0, 0o755), "/srv/k": (STRANGER, 0o755)}
    folders |= {"/tmp": (0, 0o1777), "/tmp/x": (STRANGER, 0o755)}
    assert why_not_trusted("/srv/k/kpcache.sock", STRANGER, {})


def test_the_places_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, state = tmp_path / "run/kpcache/kpcache.sock", tmp_path / "state/kpcache/kpcache.sock"
    environ = {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "XDG_STATE_HOME": str(tmp_path / "state")}
    system = tmp_path / "system.sock"
    monkeypatch.setattr(address, "SYSTEM_SOCKET", str(system))
    for place in (runtime, system, state):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    assert find_socket("/given", {**environ, "KPCACHE_SOCKET": "/named"}) == "/given"
    assert find_socket(None, {**environ, "KPCACHE_SOCKET": "/named"}) == "/named"
    for place in (runtime, system, state):
        assert find_socket(None, environ) == str(place)
        place.unlink()
    assert find_socket(None, environ) == str(system)


def test_without_a_runtime_folder_the_system_socket_is_the_one_to_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os.path, "exists", lambda _path: False)
    assert find_socket(None, {}) == SYSTEM_SOCKET

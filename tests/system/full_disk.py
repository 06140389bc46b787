"""Changes a keyring on a disk that is really full: ``python -m tests.system.full_disk FOLDER``.

It puts a tmpfs of its own on FOLDER, so it must run in a mount namespace of its own, where that ends with
it. What a change did is checked here. Printed is, for each amount of room that was left, from none upwards:
1 if the change was made, 0 if it was refused.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from kpcache.errors import ConfigError, KeyUnavailableException
from kpcache.keyring import changes
from tests.keyrings import ALIAS
from tests.vaults import FILE, MARK, PREVIOUS, holds_a_secret, open_vault, purge, rotate, used_vault

BLOCKS, INODES = 128, 24
# The keyring is this large, so that a disk can become full at many places of it.
DOCUMENT_BLOCKS = 5
NO_SPACE = "No space left on device; free some space there"

Room = Callable[[Path, int], None]


def leave_blocks(filler: Path, blocks: int) -> None:
    """Fill the disk but for so many blocks."""
    disk = os.statvfs(filler.parent)
    with filler.open("wb") as file:
        if disk.f_bavail > blocks:
            os.posix_fallocate(file.fileno(), 0, (disk.f_bavail - blocks) * disk.f_frsize)
    assert os.statvfs(filler.parent).f_bavail == blocks


def leave_inodes(filler: Path, inodes: int) -> None:
    """Use up all inodes but so many: then files can grow, but none can be made."""
    filler.mkdir()
    while (left := os.statvfs(filler.parent).f_favail) > inodes:
        (filler / str(left)).touch()
    assert left == inodes


@contextlib.contextmanager
def filled(disk: Path, leave: Room, room: int) -> Iterator[None]:
    filler = disk / "filler"
    leave(filler, room)
    yield
    if filler.is_dir():
        shutil.rmtree(filler)
    else:
        filler.unlink()


def refusal(call: Callable[[], object]) -> str | None:
    try:
        call()
    except (ConfigError, KeyUnavailableException) as error:
        return error.message
    return None


def change_with_room(disk: Path, template: Path, kind: str, leave: Room, room: int) -> bool:
    """Whether the change was made; the keyring is checked to be the old or the new one, whole."""
    change = {"rotate": rotate, "purge": purge}[kind]
    state = Path(shutil.copytree(template, disk / "state"))
    vault = open_vault(state, "never")
    old, new = vault.content, change(vault.content)
    with filled(disk, leave, room):
        told = refusal(lambda: vault.change(change, destroys=kind == "purge"))
        assert told is None or (NO_SPACE in told and "the keyring is as it was" in told), told
        is_new = vault.content == new
        assert is_new is (told is None)
        assert is_new or vault.content == old
        assert open_vault(state, "never").content == vault.content, "a start works on a full disk"
        assert set(os.listdir(state)) == {FILE, MARK, PREVIOUS}, "it is met before anything is removed"
        assert not (is_new and kind == "purge" and holds_a_secret(state, old))
    assert is_new or vault.change(change, destroys=kind == "purge") == new, "as soon as there is room"
    shutil.rmtree(state)
    return is_new


def first_start_with_room(disk: Path, leave: Room, room: int) -> bool:
    """Whether the start came to its end; else the next one must, where there is room."""
    state = disk / "state"
    state.mkdir(mode=0o700)
    with filled(disk, leave, room):
        told = refusal(lambda: open_vault(state))
        assert told is None or NO_SPACE in told, told
        assert (state / FILE).exists() or not os.listdir(state), "a mark alone keeps every start away"
    open_vault(state)
    shutil.rmtree(state)
    return told is None


def main() -> None:
    disk = Path(sys.argv[1])
    block = os.sysconf("SC_PAGE_SIZE")
    options = f"size={BLOCKS * block},nr_inodes={INODES},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "kpcache-test", disk], check=True)
    # Made on the disk that is full later: its size there is what counts.
    template = disk / "template"
    template.mkdir(mode=0o700)
    vault = used_vault(template)
    # A description has at most 8192 characters, but one beyond ASCII takes up to twelve bytes of JSON.
    widest = "\N{LOCK}"
    description = widest * (DOCUMENT_BLOCKS * block // len(json.dumps(widest).strip('"')))
    vault.change(lambda content: changes.describe_as(content, ALIAS, description))
    told: dict[str, list[int]] = {}
    for kind in ("rotate", "purge"):
        for leave, rooms in ((leave_blocks, 3 * DOCUMENT_BLOCKS + 3), (leave_inodes, 4)):
            told[f"{kind} {leave.__name__}"] = [
                int(change_with_room(disk, template, kind, leave, room)) for room in range(rooms)
            ]
    for leave, rooms in ((leave_blocks, 4), (leave_inodes, 4)):
        told[f"first {leave.__name__}"] = [
            int(first_start_with_room(disk, leave, room)) for room in range(rooms)
        ]
    print(json.dumps(told))


if __name__ == "__main__":
    main()

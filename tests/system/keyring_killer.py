"""Kills writers of a keyring: ``python -m tests.system.keyring_killer FOLDER MODE KILLS SEED``.

Each writer is a fork of this process, which is warm, so that a life costs milliseconds. A writer opens the
keyring as the daemon does and changes it over and over; into a pipe it writes the content that it is about
to make durable, and a word when that is acknowledged. It is killed after a random time, and what it left is
judged here: the last acknowledged content or the one that was under way, no material lost, none that was
destroyed kept, the folder's lock free. MODE is the keyring's unlock mode. Prints what happened, as JSON.
"""

import base64
import fcntl
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from kpcache.daemon.state import locked_folder
from kpcache.errors import CallerError
from kpcache.keyring import changes, document
from kpcache.keyring.document import Document, KeyRecord
from kpcache.keyring.seal import CREDENTIAL, Unlock
from kpcache.keyring.vault import Vault
from tests.keyrings import ALIAS
from tests.vaults import FILE, MARK, OLD, PREVIOUS, TEMPORARY, open_vault

# A kill comes within the time of so many changes.
CHANGES_A_LIFE = 4
MAX_KEYS, MAX_MATERIALS = 6, 4
PIPE_BYTES = 1 << 20  # holds all that a life says, so that nobody need read it meanwhile
ACKNOWLEDGED = b"acknowledged\n"
_DAY_S = 86400.0

Change = Callable[[Document], Document]


# --- the writer


class Writer:
    """One life: changes until it is killed."""

    def __init__(self, vault: Vault, pipe: int, rng: random.Random) -> None:
        self._vault = vault
        self._pipe = pipe
        self._rng = rng

    def change(self) -> None:
        content = self._vault.content
        # A day passes with every change, so that deletions fall due.
        now = content.revision * _DAY_S
        due = [key.key_id for key in content.keys if key.deletion_s is not None and key.deletion_s <= now]
        doomed = next((key_id for key_id in due if key_id != content.aliases[ALIAS]), None)
        if doomed is not None and self._rng.random() < 0.5:
            self._vault.change(self._told(lambda c: changes.purge(c, doomed, now)), destroys=True)
        else:
            self._vault.change(self._told(lambda c: self._any(c, now)))
        os.write(self._pipe, ACKNOWLEDGED)

    def _told(self, change: Change) -> Change:
        def told(content: Document) -> Document:
            changed = change(content)
            os.write(self._pipe, base64.b64encode(document.encode(changed)) + b"\n")
            return changed

        return told

    def _any(self, content: Document, now: float) -> Document:
        """The first change, in random order, that is allowed and changes something."""
        key, rng = self._rng.choice(content.keys), self._rng
        alias = f"alias/{rng.randrange(4)}"
        every: list[Change] = [
            lambda c: changes.create_alias(c, alias, key.key_id),
            lambda c: changes.update_alias(c, rng.choice([alias, ALIAS]), key.key_id),
            lambda c: changes.delete_alias(c, alias),
            lambda c: changes.enable(c, key.key_id),
            lambda c: changes.disable(c, key.key_id),
            lambda c: changes.schedule_deletion(c, key.key_id, 7, now),
            lambda c: changes.cancel_deletion(c, key.key_id),
            lambda c: changes.describe_as(c, key.key_id, "d" * rng.randrange(2000)),
            lambda c: changes.tag(c, key.key_id, {"purpose": str(rng.random())}),
            lambda c: changes.mark_exported(c, c.revision),
        ]
        if len(content.keys) < MAX_KEYS:
            every.append(
                lambda c: changes.create_key(c, description="", tags={}, now=now, urandom=os.urandom)
            )
        if len(key.materials) < MAX_MATERIALS:
            every.append(lambda c: changes.rotate(c, key.key_id, now, os.urandom))
        for change in rng.sample(every, len(every)):
            try:
                changed = change(content)
            except CallerError:
                continue
            if changed != content:
                return changed
        raise AssertionError("no change is possible")


def write(state: Path, unlock: Unlock, pipe: int, rng: random.Random) -> NoReturn:
    try:
        signal.alarm(60)  # for the case that nobody kills us
        with locked_folder(state):
            writer = Writer(open_vault(state, "never", unlock=unlock), pipe, rng)
            os.write(pipe, b"ready\n")
            while True:
                writer.change()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


# --- the judge


class Judge:
    """What must be in the keyring, by what its writers have said."""

    def __init__(self, state: Path, unlock: Unlock) -> None:
        self._state = state
        self._unlock = unlock
        with locked_folder(state):
            self._known = open_vault(state, unlock=unlock, now=lambda: 0.0).content
        self._secrets = _secrets(self._known)
        self._destroyed: list[bytes] = []
        self.changes = self.old = self.new = self.purges = self.temporaries = 0

    def judge(self, said: list[bytes]) -> None:
        """``said``: the whole lines that a writer wrote before it was killed."""
        under_way: Document | None = None
        for line in said:
            if line == ACKNOWLEDGED:
                assert under_way is not None
                self._accept(under_way)
                under_way = None
            else:
                under_way = document.decode(base64.b64decode(line))
        # Before the next start, which puts in order what a killed writer has left.
        left = {name: (self._state / name).read_bytes() for name in os.listdir(self._state)}
        with locked_folder(self._state):
            found = open_vault(self._state, "never", unlock=self._unlock).content
        if found == self._known:
            if under_way is not None:
                self.old += 1
                copy = left.get(PREVIOUS, b"")
                assert copy != document.encode(under_way), "a copy of what never came into force"
        else:
            assert found == under_way, "neither the last acknowledged content nor the one under way"
            self._accept(under_way)
            self.new += 1
        kept = _secrets(found)
        assert all(kept.get(name) == secret for name, secret in self._secrets.items()), "a material is lost"
        self._look_at(left)

    def _accept(self, content: Document) -> None:
        """This is in force. Materials go only with a key that was due; all of them are gone then."""
        self.changes += 1
        gone = [key for key in self._known.keys if key.key_id not in {each.key_id for each in content.keys}]
        for key in gone:
            assert key.deletion_s is not None
            assert key.deletion_s <= self._known.revision * _DAY_S
            self.purges += 1
            for material in key.materials:
                self._destroyed.append(
                    base64.b64encode(self._secrets.pop((key.key_id, material.material_id)))
                )
        self._known = content
        self._secrets |= _secrets(content)

    def _look_at(self, left: Mapping[str, bytes]) -> None:
        self.temporaries += bool(left.keys() & {TEMPORARY, OLD})
        assert {FILE, MARK, "lock"} <= left.keys() <= {FILE, MARK, "lock", PREVIOUS, TEMPORARY, OLD}, (
            left.keys()
        )
        assert not set(os.listdir(self._state)) & {TEMPORARY, OLD}, "a start leaves none"
        for name, data in left.items():
            assert not any(secret in data for secret in self._destroyed[-50:]), (
                f"{name} holds a secret that was destroyed"
            )


def _secrets(content: Document) -> dict[tuple[str, str], bytes]:
    keys: tuple[KeyRecord, ...] = content.keys
    return {(key.key_id, material.material_id): material.secret for key in keys for material in key.materials}


# --- lives


def live(state: Path, unlock: Unlock, rng: random.Random, within_s: float) -> list[bytes]:
    """Start a writer, kill it in the middle of its work, and return what it said, in whole lines."""
    out, into = os.pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    pid = os.fork()
    if not pid:
        os.close(out)
        write(state, unlock, into, rng)
    os.close(into)
    with open(out, "rb") as pipe:
        ready = pipe.readline()
        time.sleep(rng.uniform(0, within_s))
        os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert (ready, status) == (b"ready\n", -signal.SIGKILL)
        return [line for line in pipe if line.endswith(b"\n")]


def change_s(folder: Path, unlock: Unlock) -> float:
    """How long a change takes here, in seconds."""
    folder.mkdir(mode=0o700)
    with open(os.devnull, "wb") as nobody:
        writer = Writer(open_vault(folder, unlock=unlock, now=lambda: 0.0), nobody.fileno(), random.Random(0))
        began, count = time.monotonic(), 50
        for _ in range(count):
            writer.change()
    return (time.monotonic() - began) / count


def main() -> None:
    folder, mode, kills, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    (folder / CREDENTIAL).write_bytes(os.urandom(32))
    state = folder / "state"
    state.mkdir(mode=0o700)
    unlock = Unlock(mode, credentials=folder)
    judge = Judge(state, unlock)
    rng, within_s = random.Random(seed), CHANGES_A_LIFE * change_s(folder / "trial", unlock)
    for count in range(1, kills + 1):
        try:
            judge.judge(live(state, unlock, rng, within_s))
        except BaseException:
            print(f"at kill {count} of seed {seed}", file=sys.stderr)
            raise
    told = {each: getattr(judge, each) for each in ("changes", "old", "new", "purges", "temporaries")}
    print(json.dumps({"kills": kills, **told}))


if __name__ == "__main__":
    main()

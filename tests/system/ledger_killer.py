"""Kills writers of a ledger: ``python -m tests.system.ledger_killer FOLDER KILLS SEED``.

Each writer is a fork of this process, which is warm. It opens the ledger as the daemon does and records batch
after batch, now and then of tags that were recorded before; into a pipe it writes which tags it is about to
record, and then which pairs were accepted. It is killed after a random time, and what it left is judged here,
by what it has said: nothing acknowledged is missing, of a batch under way all or nothing is there, nothing
that was recorded is accepted again. Prints what happened, as JSON.
"""

import contextlib
import fcntl
import json
import os
import random
import signal
import sqlite3
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from kpcache.daemon.ledger_batch import Batch, Made, NewPair
from kpcache.daemon.ledger_file import LedgerFile
from kpcache.daemon.state import locked_folder
from tests.ledgers import BY, SPEC, TAG_KEY

# A kill comes within the time of so many batches.
BATCHES_A_LIFE = 6
PIPE_BYTES = 1 << 20  # holds all that a life says, so that nobody need read it meanwhile


def open_ledger(state: Path, expected_id: str) -> LedgerFile:
    file = LedgerFile(state, TAG_KEY, expected_id, os.urandom)
    file.connect()
    return file


def any_batch(rng: random.Random, known: list[bytes]) -> Batch:
    """Mostly new pairs, of two tags each."""

    def tag() -> bytes:
        return rng.choice(known) if known and rng.random() < 0.02 else os.urandom(16)

    pairs = [NewPair(n, [tag(), tag()], os.urandom(8)) for n in range(rng.choice([1, 1, 8, 128]))]
    return Batch([Made(SPEC, BY, pairs, lambda _made, _twins: None)], int(time.time() // 60))


def work(file: LedgerFile, pipe: int, rng: random.Random, known: list[bytes]) -> None:
    batch = any_batch(rng, known)
    tags = [[tag.hex() for tag in pair.tags] for pair in batch.made[0].pairs]
    os.write(pipe, json.dumps(tags).encode() + b"\n")
    refused = sorted(pair for _, pair in file.record(batch).refused)
    os.write(pipe, json.dumps({"refused": refused}).encode() + b"\n")
    if file.standing and rng.random() < 0.2:
        file.clear_alarm()


def write(state: Path, expected_id: str, pipe: int, rng: random.Random, known: list[bytes]) -> NoReturn:
    try:
        signal.alarm(60)  # for the case that nobody kills us
        with locked_folder(state):
            file = open_ledger(state, expected_id)
            assert not file.rolled_back, file.rolled_back
            os.write(pipe, b"ready\n")
            while True:
                work(file, pipe, rng, known)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


class Judge:
    """What must be in the ledger, by what its writers have said."""

    def __init__(self, state: Path) -> None:
        self._path = state / "ledger.db"
        self.known: set[bytes] = set()
        self.acknowledged = self.landed = self.vanished = self.refused = 0

    def judge(self, said: list[Any]) -> None:
        """``said``: the whole lines that a writer wrote before it was killed."""
        under_way: list[list[bytes]] | None = None
        for line in said:
            if isinstance(line, list):
                under_way = [[bytes.fromhex(tag) for tag in pair] for pair in line]
                continue
            assert under_way is not None
            self._accept(under_way, line["refused"])
            under_way = None
        found = self._found()
        assert self.known <= found, "a tag that was acknowledged is missing"
        if under_way is None:
            assert found == self.known
            return
        new = {tag for pair in under_way for tag in pair} - self.known
        assert found - self.known in (set(), new), "a part of a batch is there"
        self.landed += found > self.known
        self.vanished += found == self.known and bool(new)
        self.known = found

    def _accept(self, pairs: list[list[bytes]], refused: list[int]) -> None:
        for index, pair in enumerate(pairs):
            is_new = self.known.isdisjoint(pair)
            assert is_new is (index not in refused), "a tag was accepted twice, or refused though it was new"
            self.known.update(pair)
        self.acknowledged += 1
        self.refused += len(refused)

    def _found(self) -> set[bytes]:
        """Read by SQLite and not by us, as an auditor would."""
        with contextlib.closing(sqlite3.connect(self._path)) as rows:
            found = {tag for [tag] in rows.execute("SELECT tag FROM tags")}
            assert rows.execute("SELECT rows FROM ledger").fetchone() == (len(found),)
            assert rows.execute("PRAGMA quick_check").fetchone() == ("ok",)
        return found


def live(state: Path, expected_id: str, rng: random.Random, within_s: float, known: list[bytes]) -> list[Any]:
    """Start a writer, kill it in the middle of its work, and return what it said, in whole lines."""
    out, into = os.pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    pid = os.fork()
    if not pid:
        os.close(out)
        write(state, expected_id, into, rng, known)
    os.close(into)
    with open(out, "rb") as pipe:
        ready = pipe.readline()
        time.sleep(rng.uniform(0, within_s))
        os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert (ready, status) == (b"ready\n", -signal.SIGKILL)
        return [json.loads(line) for line in pipe if line.endswith(b"\n")]


def batch_s(folder: Path) -> float:
    """How long a batch takes here, in seconds."""
    folder.mkdir(mode=0o700)
    file, rng = open_ledger(folder, ""), random.Random(0)
    with open(os.devnull, "wb") as nobody, contextlib.closing(file):
        began, count = time.monotonic(), 50
        for _ in range(count):
            work(file, nobody.fileno(), rng, [])
    return (time.monotonic() - began) / count


def main() -> None:
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    state = folder / "state"
    state.mkdir(mode=0o700)
    with contextlib.closing(open_ledger(state, "")) as first:
        expected_id = first.id
    judge, rng = Judge(state), random.Random(seed)
    within_s = BATCHES_A_LIFE * batch_s(folder / "trial")
    for count in range(1, kills + 1):
        try:
            judge.judge(live(state, expected_id, rng, within_s, sorted(judge.known)))
        except BaseException:
            print(f"at kill {count} of seed {seed}", file=sys.stderr)
            raise
        rng.random()  # the writers have copies of it: each life another
    told = {each: getattr(judge, each) for each in ("acknowledged", "landed", "vanished", "refused")}
    print(json.dumps({"kills": kills, "tags": len(judge.known), **told}))


if __name__ == "__main__":
    main()

"""Real shards and what they seal: run as ``reserve_trials``, with a tmpfs of its own as the folder."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kpcache.core import segment
from kpcache.core.pipe import encode
from kpcache.core.segment import Place, Row
from kpcache.worker import sealing
from kpcache.worker.holding import Holding
from kpcache.worker.sealing import Sealer, open_segment
from tests.system.dying_shard import STEPS
from tests.system.shard_driver import ShardDriver, hogs, shard

SPEC = "ECC_NIST_EDWARDS25519"
KEY = bytes(range(32))
PLACE = Place(b"b" * 16, b"m" * 16, 0)
DYING = [sys.executable, "-P", str(Path(__file__).with_name("dying_shard.py"))]
PER_SEGMENT = 1788  # of the smallest pairs there are


def told(folder: Path) -> dict[str, Any]:
    return {
        "folder": str(folder), "key": KEY, "boot": PLACE.boot, "machine": PLACE.machine,
        "generation": PLACE.generation, "life": 3,
    }  # fmt: skip


def sealed(folder: Path) -> list[Row]:
    """What lies in the folder, all of which opens."""
    return [row for path in folder.glob("*.segment") for row in open_segment(path.read_bytes(), KEY)]


def hang_up(driver: ShardDriver) -> None:
    """The daemon's end of the pipe is closed, as by its death."""
    driver.pipe.close()
    assert driver.ended_within(10.0)
    assert driver.process.returncode == 0


def held_pairs_are_sealed(folder: Path) -> None:
    with shard(reserve=told(folder)) as driver:
        driver.start_maker()
        driver.fill(SPEC, 10)
        driver.make(SPEC, 3, order=2)  # without a verdict
        _, [drawn] = driver.draw(SPEC, 1)
        hang_up(driver)
    rows = sealed(folder)
    assert len(rows) == 9
    assert drawn[2] not in {row.private for row in rows}
    assert {(row.spec, row.generation) for row in rows} == {(SPEC, 0)}


def a_segment_is_restored(folder: Path) -> None:
    """Its pairs come back with their tags and ages; they can be drawn after a verdict, once, not before."""
    with shard(reserve=told(folder)) as driver:
        driver.start_maker()
        made = driver.make(SPEC, 5)
        driver.send("verdict", [serial for serial, *_ in made], [])
        hang_up(driver)
    [path] = folder.glob("*.segment")
    data = path.read_bytes()
    path.unlink()
    with shard(reserve=told(folder)) as driver:
        driver.send("restore", "one", KEY, data)
        name, rows = driver.expect("restored")
        assert (name, [row[1:3] for row in rows]) == ("one", [[SPEC, b"".join(tags)] for _, tags, _ in made])
        assert all(0 <= row[3] < 60 for row in rows)
        assert driver.draw(SPEC, 9) == (1, [])
        driver.send("verdict", [row[0] for row in rows[:4]], [rows[4][0]])
        _, pairs = driver.draw(SPEC, 2)
        assert [pair[3] for pair in pairs] == [public for _, _, public in made[:2]]
        driver.send("restore", "two", bytes(32), data)
        assert driver.expect("restored") == ["two", None]
        hang_up(driver)
    assert [row.public for row in sealed(folder)] == [public for _, _, public in made[2:4]]


def a_shard_that_is_dismissed_seals_nothing(folder: Path) -> None:
    with shard(reserve=told(folder)) as driver:
        driver.start_maker()
        driver.fill(SPEC, 10)
        driver.send("end")
        assert driver.ended_within(10.0)
        assert driver.process.returncode == 0
    assert list(folder.iterdir()) == []


def last_words_are_heeded(folder: Path) -> None:
    """A shard that finds the pipe broken when it writes has not yet read what was said before."""
    for words, left in (([["end"]], 0), ([["burn", SPEC, 3]], 97)):
        with shard(reserve=told(folder)) as driver:
            driver.start_maker()
            driver.fill(SPEC, 100)
            driver.draw(SPEC, 0)  # all has been read that was said so far
            os.kill(driver.process.pid, signal.SIGSTOP)
            # More than one read takes, so that what decides is not yet read when the answers are written.
            draws = b"".join(encode(["draw", n, "ECC_NIST_P521", 1]) for n in range(3000))
            driver.pipe.sendall(draws + b"".join(map(encode, words)))
            driver.pipe.close()
            os.kill(driver.process.pid, signal.SIGCONT)
            assert driver.ended_within(10.0)
        assert len(sealed(folder)) == left, words
        for path in folder.iterdir():
            path.unlink()


def a_defect_of_the_daemon_seals_nothing(folder: Path) -> None:
    with shard(reserve=told(folder)) as driver:
        driver.start_maker()
        driver.fill(SPEC, 10)
        driver.send("nonsense")
        assert driver.ended_within(10.0)
        assert driver.process.returncode == 4
    assert list(folder.iterdir()) == []


def killed_while_sealing(folder: Path) -> dict[str, Any]:
    """At each step of the second segment: the first is whole, and of the second there is all or nothing."""
    kept: dict[str, int] = {}
    for step in STEPS:
        with shard(reserve=told(folder), scheduling="normal", command=[*DYING, step]) as driver:
            driver.start_maker()
            driver.fill(SPEC, 3 * PER_SEGMENT)
            driver.pipe.close()
            assert driver.ended_within(10.0)
            assert driver.process.returncode == -signal.SIGKILL, step
        rows = sealed(folder)
        whole = 2 if step == "named" else 1
        assert len({row.private for row in rows}) == len(rows) == whole * PER_SEGMENT, step
        unfinished = [path for path in folder.iterdir() if segment.is_temporary_name(path.name)]
        assert len(unfinished) == (step in ("file made", "half written", "written")), step
        kept[step] = len(rows)
        for path in folder.iterdir():
            assert segment.is_file_name(path.name) or path in unfinished, path
            path.unlink()
    return {"kept": kept}


def _ballast(folder: Path, left: int) -> Path:
    """Leave so many bytes free there."""
    path, room = folder / "ballast", os.statvfs(folder)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, room.f_bfree * room.f_frsize - left)
    return path


def others_keep_a_quarter_of_the_room(folder: Path) -> None:
    room = os.statvfs(folder)
    quarter = room.f_blocks * room.f_frsize // 4
    ballast = _ballast(folder, quarter + segment.FULL_BYTES * 3 // 2)
    with shard(reserve=told(folder), scheduling="normal") as driver:
        driver.start_maker()
        driver.fill(SPEC, 3 * PER_SEGMENT)
        hang_up(driver)
        assert driver.process.stderr is not None
        assert driver.process.stderr.read() == (
            b"not all that it held could be sealed: less than 25% of its file system would be left free\n"
        )
    assert len(sealed(folder)) == PER_SEGMENT
    assert len(list(folder.iterdir())) == 2, "the segment and the ballast"
    assert os.statvfs(folder).f_bfree * room.f_frsize >= quarter
    ballast.unlink()


def what_another_fills_meanwhile_leaves_nothing_half_written(folder: Path) -> None:
    """There was room when it was asked for."""
    _ballast(folder, 100 * 1024)
    holding = Holding()
    for _ in range(PER_SEGMENT):
        holding.record([holding.add(Row(SPEC, 0, bytes(48), bytes(44), bytes(32), bytes(16), 1.0))])
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealing, "_require_room", lambda *_: None)
        with pytest.raises(OSError, match="No space left"):
            Sealer(fd, 0, KEY, PLACE, 3).seal(holding)
    os.close(fd)
    assert [path.name for path in folder.iterdir()] == ["ballast"]


def an_rsa_4096_in_the_making_holds_nothing_up(folder: Path) -> dict[str, Any]:
    with shard(reserve=told(folder)) as driver, hogs(2):
        driver.start_maker()
        driver.fill(SPEC, 1000)
        driver.send("make", 0, 9, "RSA_4096", 5)
        began = time.monotonic()
        hang_up(driver)
        took_s = time.monotonic() - began
    assert len(sealed(folder)) == 1000
    return {"sealed_and_ended_s": round(took_s, 3)}


def an_unfit_folder_is_told(folder: Path) -> None:
    folder.chmod(0o755)
    with shard(reserve=told(folder)) as driver:
        driver.start_maker()
        driver.fill(SPEC, 3)
        hang_up(driver)
        assert driver.process.stderr is not None
        assert b"what it holds will not wait out a restart" in driver.process.stderr.readline()
    assert list(folder.iterdir()) == []


TRIALS: dict[str, Callable[[Path], dict[str, Any] | None]] = {
    each.__name__: each
    for each in (
        held_pairs_are_sealed, a_segment_is_restored, a_shard_that_is_dismissed_seals_nothing,
        last_words_are_heeded, a_defect_of_the_daemon_seals_nothing, killed_while_sealing,
        others_keep_a_quarter_of_the_room, what_another_fills_meanwhile_leaves_nothing_half_written,
        an_rsa_4096_in_the_making_holds_nothing_up, an_unfit_folder_is_told,
    )
}  # fmt: skip


def main() -> None:
    folder, name = Path(sys.argv[1]) / "reserve", sys.argv[2]
    folder.mkdir(mode=0o700)
    options = "size=64m,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "kpcache-test", folder], check=True)
    print(json.dumps({name: TRIALS[name](folder)}))


if __name__ == "__main__":
    main()

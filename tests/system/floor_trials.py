"""Trials of what a snapshot leaves of the reserve: segments that turn up after it, wherever they were. Run as
a program on a tmpfs of its own, with the name of a trial."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.system.harness import PATIENCE_S, running
from tests.system.reserve_trials import SMALL, fill_and_stop, segments
from tests.system.reserve_trials import _mount as mount


def _late(folder: Path, least: int, *commands: str) -> tuple[int, dict[str, int]]:
    """Segments of one life come back two lives later, after these commands; what was restored in all, which
    is waited for to be at ``least`` so much, and what was dropped."""
    fill_and_stop(folder)
    aside = folder / "aside"
    aside.mkdir()
    for each in segments(folder):
        shutil.move(each, aside)
    with running(folder, SMALL) as daemon:
        daemon.wait_full()
        for command in commands:
            subprocess.run(
                [sys.executable, "-m", "kpcache", command, "--socket", daemon.socket],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        daemon.wait_full()
    for each in aside.iterdir():
        shutil.move(each, folder / "reserve")
    with running(folder, SMALL) as daemon:
        deadline = time.monotonic() + PATIENCE_S
        while segments(folder) and time.monotonic() < deadline:
            time.sleep(0.01)
        # The last one that is gone from the folder is still on its way into a shard.
        while (reserve := daemon.status()["reserve"])["restored"] < least and time.monotonic() < deadline:
            time.sleep(0.01)
    return reserve["restored"], reserve["dropped_segments"]


def after_a_snapshot(folder: Path) -> dict[str, Any]:
    """What was sealed before it stays burnt; what was held at the end of the life after it is back."""
    restored, dropped = _late(folder, 1, "quiesce", "resume")
    assert (0 < restored <= 64, dropped) == (True, {"stale": 1}), (restored, dropped)
    return {"restored": restored}


def without_one(folder: Path) -> dict[str, Any]:
    """So that the other says something: here all come back."""
    restored, dropped = _late(folder, 65)
    assert (restored > 64, dropped) == (True, {}), (restored, dropped)
    return {"restored": restored}


TRIALS = {trial.__name__: trial for trial in (after_a_snapshot, without_one)}


def main() -> None:
    folder, name = Path(sys.argv[1]), sys.argv[2]
    home = folder / "home"
    home.mkdir(mode=0o700)
    mount(home, 256 * 1024 * 1024)
    print(json.dumps({name: TRIALS[name](home)}))


if __name__ == "__main__":
    main()

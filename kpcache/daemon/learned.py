"""What the daemon has learned of the demand, kept over a restart in a small file that holds nothing secret.

``demand.json`` in the state folder: ``version`` 1, ``saved_s`` (Unix seconds), and by spec the sums of
``core/demand`` and the target of ``core/targets``. It is worth nothing to anybody else, and a daemon without
it learns anew: so it is written without waiting for the disk, and one that cannot be read is only told of.
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import trio

from kpcache.core.text import printable
from kpcache.daemon.notices import log
from kpcache.daemon.planner import Planner

FILE_NAME: Final = "demand.json"
VERSION: Final = 1
SAVE_INTERVAL_S: Final = 600.0
# A stop does not wait longer for a disk that hangs.
_LAST_SAVE_S: Final = 1.0
_MAX_BYTES: Final = 65536


class Learned:
    """The file. ``now`` gives Unix seconds: the time between two lives of the daemon counts."""

    def __init__(self, state_dir: Path, planner: Planner, now: Callable[[], float] = time.time) -> None:
        self._path = state_dir / FILE_NAME
        self._planner = planner
        self._now = now

    def load(self) -> None:
        """Let the planner go on from the file, if there is one that makes sense."""
        try:
            with self._path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
            self._planner.resume(*_parsed(data, self._now()))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, ArithmeticError, RecursionError) as error:
            log.warning(
                "%s is not used (%s): demand is learned anew, and the file written over",
                self._path, printable(str(error)),
            )  # fmt: skip

    async def run(self) -> None:
        """Save now and then, until cancelled, and then once more."""
        try:
            while True:
                await trio.sleep(SAVE_INTERVAL_S)
                await self._save()
        finally:
            with trio.move_on_after(_LAST_SAVE_S, shield=True):
                await self._save()

    async def _save(self) -> None:
        if not self._planner.adapts:
            return  # nothing would be made of it
        text = json.dumps({"version": VERSION, "saved_s": self._now(), "specs": self._planner.state()})
        try:
            await trio.to_thread.run_sync(self._write, text, abandon_on_cancel=True)
        except (OSError, RuntimeError) as error:  # the latter: there is no thread to be had
            log.warning("%s cannot be written (%s): a restart would learn anew", self._path, error)

    def _write(self, text: str) -> None:
        temporary = self._path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o600), "w") as file:
            file.write(text)
        os.replace(temporary, self._path)


def _parsed(data: bytes, now: float) -> tuple[Mapping[str, list[float]], float]:
    """What ``Planner.state`` had returned, and how long ago. Raises ``ValueError``."""
    if len(data) > _MAX_BYTES:
        raise ValueError("it is too large")
    file: Any = json.loads(data)
    if not isinstance(file, dict) or file.keys() != {"version", "saved_s", "specs"}:
        raise ValueError("it has other fields")
    if file["version"] != VERSION or not isinstance(file["specs"], dict):
        raise ValueError("it is of another version")
    rows = file["specs"].values()
    if not all(isinstance(row, list) and len(row) == 4 and all(map(_is_finite, row)) for row in rows):
        raise ValueError("it holds something else than numbers")
    if not _is_finite(file["saved_s"]):
        raise ValueError("it does not say when it was saved")
    return file["specs"], now - file["saved_s"]


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0

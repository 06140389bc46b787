"""Finds makers that hang over an order: no end of theirs would ever be reported."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import trio

from kpcache.core.restart import WorkSample, is_hung
from kpcache.daemon.floor import Floor
from kpcache.daemon.worker_record import Worker

# How often makers at work are looked at, and how many times the usual CPU of a key are too many: key
# generation takes a random number of tries, so a few times as much is common.
WATCH_INTERVAL_S = 10.0
MAX_COSTS = 50
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

Looks = dict[tuple[int, int], tuple[WorkSample, WorkSample]]
"""By maker: the first look at its present progress, and the last one."""


async def watch_makers(
    floor: Floor, makers: Mapping[tuple[int, int], Worker], replace: Callable[[Worker, str], None]
) -> None:
    """Have ``replace`` called for makers that do no more work. Sleeps for good while there are no orders."""
    while True:
        await floor.busy.wait()
        floor.busy = trio.Event()
        looks: Looks = {}
        while floor.in_work():
            await trio.sleep(WATCH_INTERVAL_S)
            for maker in _find_hung(floor, makers, looks):
                replace(maker, "hung over an order")


def _find_hung(floor: Floor, makers: Mapping[tuple[int, int], Worker], looks: Looks) -> list[Worker]:
    hung: list[Worker] = []
    for key, (progress, cost_s) in floor.in_work().items():
        maker = makers[key]
        seen = process_state(maker.pid) if maker.pid else None
        if seen is None:
            looks.pop(key, None)
            continue
        now = WorkSample(progress, *seen)
        first, last = looks.get(key, (now, now))
        if key in looks and is_hung(first, last, now, max(WATCH_INTERVAL_S, MAX_COSTS * cost_s)):
            del looks[key]
            hung.append(maker)
        else:
            looks[key] = (first if first.progress == progress else now, now)
    return hung


def process_state(pid: int) -> tuple[str, float] | None:
    """Its state (R running or runnable, S asleep, T stopped …) and CPU seconds so far; None if it is gone."""
    try:
        # The name, in brackets, may hold anything; the fields behind it are numbered from 3 in proc(5).
        fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

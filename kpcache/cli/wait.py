"""Wait until the pools hold enough.

``ready``: every pool is at the daemon's ``ready_level``, by default its low watermark; ``full``: at its
target; ``N%``: at that part of its target. The rule is ``core/readiness``.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

from kpcache.cli.fill import below
from kpcache.cli.output import complain, positive_seconds
from kpcache.client import Client
from kpcache.core.readiness import LOW_WATER, is_level
from kpcache.errors import DaemonUnreachableError

_POLL_INTERVAL_S = 0.2
_DEFAULT_TIMEOUT_S = 300.0
_TRY_AGAIN = 4
_READY = "ready"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--level", type=level, default="ready", metavar="ready|full|N%", help="what to wait for (ready)"
    )
    parser.add_argument(
        "--timeout",
        type=positive_seconds,
        default=_DEFAULT_TIMEOUT_S,
        metavar="S",
        help=f"give up after so many seconds ({_DEFAULT_TIMEOUT_S:g})",
    )


def level(text: str) -> str:
    """An argparse type."""
    if text != _READY and (text == LOW_WATER or not is_level(text)):
        raise argparse.ArgumentTypeError(f"{text}: must be ready, full, or a percentage from 1% to 100%")
    return text


def run(args: argparse.Namespace) -> int:
    # reconnect_s=0: this command does its own waiting.
    with Client(args.socket, reconnect_s=0.0) as client:
        return wait_for(args.level, args.timeout, client.status, clock=time.monotonic, sleep=time.sleep)


def wait_for(
    wanted: str,
    timeout_s: float,
    ask: Callable[[], dict[str, Any]],
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> int:
    """0 when reached, 4 when time is up. Raises ``DaemonUnreachableError`` when there is no daemon by then,
    and at once when there is one that must not be used.
    """
    give_up = clock() + timeout_s
    while True:
        try:
            missing = missing_for(wanted, ask())
            if not missing:
                return 0
        except DaemonUnreachableError as error:
            if clock() >= give_up or not _may_come_up(error):
                raise
        else:
            if clock() >= give_up:
                complain(f"not {wanted} after {timeout_s:g} s: {missing}")
                return _TRY_AGAIN
        sleep(min(_POLL_INTERVAL_S, max(give_up - clock(), 0.0)))


def missing_for(wanted: str, status: dict[str, Any]) -> str:
    """Empty when ``status`` is at the level, else what is missing, in words."""
    if wanted == _READY:
        if status["ready"]:
            return ""
        wanted = str(status["ready_level"])
    pools = below(status["pools"], wanted)
    return ", ".join(f"{spec} {filled}" for spec, filled in pools.items())


def _may_come_up(error: DaemonUnreachableError) -> bool:
    """Whether waiting can help: not with a stranger's socket (no cause), nor with one we may not open."""
    return error.__cause__ is not None and not isinstance(error.__cause__, PermissionError)

"""``kpcache`` that is killed at one step of a restore, which its first argument names. Never for use."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from kpcache.cli.main import main
from kpcache.daemon.ledger_file import LedgerFile
from kpcache.daemon.reserve import Reserve
from kpcache.daemon.segment_folder import SegmentFolder
from kpcache.daemon.stock import Stock
from kpcache.daemon.supervisor import Supervisor

# By step: what is called there, and whether the daemon dies before it or when it has returned.
STEPS: dict[str, tuple[type, str, bool]] = {
    "before the claim": (LedgerFile, "claim", True),
    "claimed": (LedgerFile, "claim", False),
    "read": (SegmentFolder, "read", False),
    "removed": (SegmentFolder, "unlink", False),
    "given to a shard": (Supervisor, "send", False),
    "opened": (Reserve, "opened", True),
    "known": (LedgerFile, "unknown", False),
    "held": (Stock, "restore", False),
}


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _counts(name: str, argument: Any) -> bool:
    """Not of the first message to a shard, nor of the note that lies beside the segments."""
    if name == "send":
        return bool(argument[0] == "restore")
    return name != "unlink" or argument.endswith(".segment")


def _deadly(works: Callable[..., Any], *, before: bool) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        counts = _counts(works.__name__, args[-1])
        if counts and before:
            _die()
        result = works(*args, **options)
        if counts:
            _die()
        return result

    return call


if __name__ == "__main__":
    owner, name, before = STEPS[sys.argv.pop(1)]
    setattr(owner, name, _deadly(getattr(owner, name), before=before))
    sys.exit(main())

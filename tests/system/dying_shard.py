"""A shard that is killed at a step of sealing its second segment, which its argument names. Never for use."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from kpcache.worker import sealing
from kpcache.worker.shard import main

# By step: what is called there, in which module, and whether the shard dies before it, in it or after it.
STEPS: Final[dict[str, tuple[Any, str, str]]] = {
    "before the file": (sealing, "_require_room", "after"),
    "file made": (sealing, "_write_all", "before"),
    "half written": (sealing, "_write_all", "half"),
    "written": (os, "rename", "before"),
    "named": (os, "rename", "after"),
}
_SECOND: Final = 2


def _deadly(works: Callable[..., Any], when: str) -> Callable[..., Any]:
    calls = 0

    def call(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < _SECOND:
            return works(*args, **options)
        if when == "half":
            fd, data = args
            works(fd, data[: len(data) // 2])
        elif when == "after":
            works(*args, **options)
        return os.kill(os.getpid(), signal.SIGKILL)

    return call


if __name__ == "__main__":
    owner, name, when = STEPS[sys.argv.pop(1)]
    setattr(owner, name, _deadly(getattr(owner, name), when))
    sys.exit(main())

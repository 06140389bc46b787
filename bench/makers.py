"""RSA keys with and without the maker's work around them, timed in CPU by the process itself.

    python -m bench.makers bare COUNT SPEC     a loop of cryptography: make, encode, drop
    python -m bench.makers maker < SOCKET      kpcache's own maker program, with key generation timed inside

Each prints two numbers at its end: CPU seconds in all, and of these in key generation alone.
"""

import sys
import time
from collections.abc import Callable

from kpcache.worker import generate, maker


class _Timed:
    """A function, and the CPU seconds spent in it; ``started``: when it was first called."""

    def __init__(self, function: Callable[[str], tuple[bytes, bytes]]) -> None:
        self._function = function
        self.started: float | None = None
        self.cpu_s = 0.0

    def __call__(self, spec: str) -> tuple[bytes, bytes]:
        before = time.process_time()
        if self.started is None:
            self.started = before
        result = self._function(spec)
        self.cpu_s += time.process_time() - before
        return result


def main() -> int:
    timed = _Timed(generate.generate)
    if sys.argv[1] == "bare":
        for _ in range(int(sys.argv[2])):
            timed(sys.argv[3])
        status = 0
    else:
        vars(maker)["generate"] = timed
        status = maker.main()
    print(time.process_time() - (timed.started or 0.0), timed.cpu_s)
    return status


if __name__ == "__main__":
    sys.exit(main())

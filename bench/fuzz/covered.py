"""Which branches of the wire format a run goes through: ``python -m bench.fuzz.covered SEED MESSAGES``.

A program of its own, since what a module does when it is imported can only be seen by who looks before that.
It runs the first cases of the seed in process, so what it has seen, a longer run of the same seed has, too.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import kpcache
from bench.daemon import BenchError

_ROOT = Path(kpcache.__file__).parent / "core"
MODULES = ("wire", "connection", "contract", "limits")


@dataclass(frozen=True)
class Seen:
    """Of one module: ``share`` is statements and branches seen, of all; ``missed`` are lines."""

    share: float
    branches: int
    branches_seen: int
    missed: list[int]


def measure(seed: int, messages: int) -> dict[str, Seen]:
    """Run that program. Raises ``BenchError`` where there is no coverage.py."""
    if find_spec("coverage") is None:
        raise BenchError("there is no coverage here: pip install -e '.[test]'")
    done = subprocess.run(
        [sys.executable, "-m", "bench.fuzz.covered", str(seed), str(messages)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
    )
    files = {Path(path).stem: found for path, found in json.loads(done.stdout)["files"].items()}
    return {
        module: Seen(
            files[module]["summary"]["percent_covered"] / 100,
            files[module]["summary"]["num_branches"],
            files[module]["summary"]["covered_branches"],
            files[module]["missing_lines"],
        )
        for module in MODULES
    }


def main() -> int:
    """Prints coverage's own report as JSON."""
    import coverage

    seed, messages = int(sys.argv[1]), int(sys.argv[2])
    files = [str(_ROOT / f"{module}.py") for module in MODULES]
    watcher = coverage.Coverage(data_file=None, branch=True, include=files, config_file=False)
    watcher.start()
    _fuzz(seed, messages)
    watcher.stop()
    watcher.json_report(outfile="-")
    return 0


def _fuzz(seed: int, messages: int) -> None:
    from bench.fuzz.cases import Maker
    from bench.fuzz.inside import Target, run
    from bench.fuzz.tally import Tally

    target, tally = Target(), Tally()
    maker = Maker(seed, target.words)
    while tally.messages < messages:
        run(target, maker, range(tally.cases, tally.cases + 100), tally)


if __name__ == "__main__":
    sys.exit(main())

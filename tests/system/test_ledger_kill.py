"""Kill -9 at random moments of commits: what was acknowledged is there, and is never accepted again."""

import json
import random
import subprocess
import sys
from pathlib import Path

from tests.system.harness import PATIENCE_S

ROOT = Path(__file__).parents[2]
KILLS = 400


def test_a_kill_at_any_moment_loses_nothing_acknowledged_and_accepts_nothing_twice(tmp_path: Path) -> None:
    """The judge is in ``ledger_killer``, which says at which kill of which seed it found something."""
    seed = str(random.SystemRandom().randrange(10**9))
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.ledger_killer", str(tmp_path), str(KILLS), seed],
        capture_output=True, text=True, check=False, timeout=3 * PATIENCE_S, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    told = json.loads(done.stdout)
    # The kills fell where they hurt: before a commit was durable, and between that and its acknowledgement.
    assert told["acknowledged"] >= KILLS // 4, told
    assert told["vanished"] >= KILLS // 50, told
    assert told["landed"] >= 1, told
    assert told["refused"] >= 5, told

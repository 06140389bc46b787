"""1,000 kill -9 at random moments of keyring changes: never a lost key, never a half state."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.harness import PATIENCE_S

ROOT = Path(__file__).parents[2]
KILLS = 500  # in each of two modes


@pytest.mark.parametrize("mode", ["file", "credential"])
def test_a_kill_at_any_moment_leaves_what_was_acknowledged_or_was_under_way(
    tmp_path: Path, mode: str
) -> None:
    """The judge is in ``keyring_killer``, which says at which kill of which seed it found something."""
    seed = str(random.SystemRandom().randrange(10**9))
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.keyring_killer", str(tmp_path), mode, str(KILLS), seed],
        capture_output=True, text=True, check=False, timeout=3 * PATIENCE_S, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    told = json.loads(done.stdout)
    assert told["kills"] == KILLS
    # The kills fell where they hurt: into writes, before and after a change came into force.
    assert told["changes"] >= KILLS // 4, told
    for moment in ("old", "new", "temporaries"):
        assert told[moment] >= KILLS // 100, told
    assert told["purges"] >= 5, told

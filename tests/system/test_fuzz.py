"""The fuzzer against a daemon, by its command: all it sends is answered or cut, a good client is served."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_over_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench.fuzz", "--messages", "0", "--over-socket", "4000", "--seed", "20261125",
         "--json", str(path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    part = json.loads(path.read_text())["parts"]["outside"]
    assert {row["verdict"] for row in part["rows"]} == {"met", ""}
    detail = part["detail"]
    assert detail["messages"] >= 4000
    assert detail["answered"]["result"] > 500
    assert detail["pairs"] > 50
    assert detail["good_client"]["served"] > 5
    assert detail["good_client"]["failures"] == {}
    assert detail["daemon"]["issued"] == detail["pairs"] + detail["good_client"]["served"]

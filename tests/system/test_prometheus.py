"""What Debian's Prometheus sees of a daemon under load is what the clients counted."""

import shutil
from pathlib import Path

import pytest

from tests.system.prometheus_trial import trial


def test_prometheus_sees_what_clients_count_and_no_counter_falls_with_a_worker(tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("a real scraper was NOT tested: install prometheus")
    seen = trial(tmp_path, seconds=6.0, kills=2)
    assert seen["worker_deaths"] >= 2
    assert seen["scrapes"] > 10

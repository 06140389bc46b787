"""The rules of a pool on the real daemon: shares, limits, age, adaptive targets, honest refusals."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from kpcache.errors import ThrottlingException
from tests.system.harness import PATIENCE_S, Daemon, pools, running

ROOT = Path(__file__).parents[2]
GREEDY, POLITE = 64201, (64202, 64203, 64204, 64205)
QUICK: Any = {"KeyId": "alias/kpcache", "KeyPairSpec": "ECC_NIST_P256"}


def asker(daemon: Daemon, uid: int, rate: float, for_s: float, wait_s: float) -> "subprocess.Popen[str]":
    words = (daemon.socket, str(uid), "RSA_2048", str(wait_s), str(rate), str(for_s), "1")
    return subprocess.Popen(
        [sys.executable, "-m", "bench.asker", *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


def told(askers: list["subprocess.Popen[str]"]) -> list[dict[str, Any]]:
    """Begin all at once, and what each was told."""
    try:
        for each in askers:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        for each in askers:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        return [json.loads(each.communicate(timeout=PATIENCE_S)[0]) for each in askers]
    finally:
        for each in askers:
            each.kill()
            each.communicate()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that every user can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="kpcache-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.parametrize("kept", [20, 0])
def test_a_greedy_user_leaves_pairs_for_those_who_ask_for_few(open_folder: Path, kept: int) -> None:
    """Those never wait: they get a pair at once or none. Without a share kept back they would get none, which
    shows that there is something to see."""
    if os.geteuid() != 0:
        pytest.skip("shares of users were NOT tested: only root can be several users")
    config = f'socket_mode = "0666"\n[requests]\nkeep_back_percent = {kept}\n' + pools(RSA_2048=60)
    with running(open_folder, config) as daemon:
        daemon.wait_full()
        first = told([asker(daemon, uid, 100, 0.05, 0) for uid in POLITE])  # they are about
        assert sum(each["got"] for each in first) > 0
        greedy, *polite = told(
            [
                asker(daemon, GREEDY, 300, 8, 0),
                *(asker(daemon, uid, 0.6, 8, 0) for uid in POLITE),
            ]
        )
        status = daemon.status()["pools"]["RSA_2048"]
    assert greedy["got"] < greedy["asked"] / 4
    asked, got = (sum(each[name] for each in polite) for name in ("asked", "got"))
    assert asked >= 8
    if kept:
        assert got == asked, polite
        assert greedy["refused"]["rate_limited"] > 100
        assert status["dry"] == 0
    else:
        assert got < asked * 0.9, polite


def test_a_user_beyond_its_limit_is_told_when_to_come_again(tmp_path: Path) -> None:
    config = pools(ECC_NIST_P256=64) + "[[limits]]\nrate_per_s = 0.5\nburst = 3\n"
    with running(tmp_path, config) as daemon, daemon.client() as client:
        for _ in range(3):
            client.generate_data_key_pair(**QUICK)
        with pytest.raises(ThrottlingException, match="limits") as caught:
            client.generate_data_key_pair(**QUICK)
        assert caught.value.reason == "rate_limited"
        assert 0 < (caught.value.retry_after_s or 0) <= 2.0
        done = subprocess.run(
            [sys.executable, "-m", "kpcache", "get", "ECC_NIST_P256", "--socket", daemon.socket],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 4
        assert "rate_limited" in done.stderr or "limits" in done.stderr


def test_who_cannot_be_served_in_time_is_told_at_once(tmp_path: Path) -> None:
    """Forty wait for pairs that take most of a second each; a client with two seconds has no hope."""
    request = {"KeyId": "alias/kpcache", "KeyPairSpec": "RSA_4096"}
    with running(tmp_path, pools() + "[requests]\nwait_timeout_s = 60\n") as daemon:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(daemon.socket)
            for msgid in range(40):
                sock.sendall(msgpack.packb([0, msgid, "GenerateDataKeyPair", [request, {"wait_s": 60}]]))
            with daemon.client() as client:
                while client.status()["pools"]["RSA_4096"]["waiting"] < 40:
                    pass
                began = time.monotonic()
                with pytest.raises(ThrottlingException) as caught:
                    client.generate_data_key_pair(**request, wait_s=2.0)  # type: ignore[arg-type]
                assert time.monotonic() - began < 1.0
        assert caught.value.reason == "pool_dry"
        assert (caught.value.retry_after_s or 0) > 2.0


def with_pool(spec: str, settings: str) -> str:
    """One pool with these settings, and no other."""
    return pools().replace(f"[pools.{spec}]\ntarget = 0\nlow_water = 0\n", f"[pools.{spec}]\n{settings}")


def test_pairs_beyond_their_age_are_burnt_and_replaced(tmp_path: Path) -> None:
    config = pools() + "[pools.ECC_NIST_P384]\n"
    config = config.replace(
        "[pools.ECC_NIST_P384]\ntarget = 0\nlow_water = 0\n",
        "[pools.ECC_NIST_P384]\ntarget = 40\nmax_age_s = 10\n",
    ).removesuffix("[pools.ECC_NIST_P384]\n")
    with running(tmp_path, config) as daemon:
        daemon.wait_full()
        began = time.monotonic()
        while True:
            status = daemon.status()
            pool = status["pools"]["ECC_NIST_P384"]
            if pool["discarded"] >= 40 and pool["ready"] + pool["held"] == 40:
                break
            assert time.monotonic() - began < PATIENCE_S
            time.sleep(0.2)
        assert time.monotonic() - began > 5
        assert status["discarded"] == {"ECC_NIST_P384": {"too_old": pool["discarded"]}}
        parts = ("issued", "discarded", "held", "ready", "in_hand")
        assert pool["generated"] == sum(pool[part] for part in parts)


def test_an_adaptive_target_grows_with_the_demand_and_is_there_again_after_a_restart(tmp_path: Path) -> None:
    config = with_pool("ECC_NIST_P256", 'target = "auto"\nmin = 4\n')
    with running(tmp_path, config) as daemon, daemon.client() as client:
        assert client.status()["pools"]["ECC_NIST_P256"]["target"] == 4
        began = time.monotonic()
        while (grown := client.status()["pools"]["ECC_NIST_P256"]["target"]) == 4:
            for _ in range(20):
                client.generate_data_key_pair(**QUICK)
            assert time.monotonic() - began < PATIENCE_S
    assert (tmp_path / "state" / "demand.json").stat().st_mode & 0o777 == 0o600
    with running(tmp_path, config) as daemon:
        again = daemon.status()["pools"]["ECC_NIST_P256"]["target"]
    assert again == pytest.approx(grown, rel=0.5)
    assert again > 4

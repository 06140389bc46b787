"""``kpcache plan``: what it takes, what it answers, and that the answer holds."""

import json
import random
import tomllib
from dataclasses import replace
from typing import Any

import pytest

from kpcache.cli.main import main
from kpcache.cli.plan import parse_needs
from kpcache.core.config import load
from kpcache.core.settings import Defaults
from kpcache.core.specs import MAKEABLE, SPECS
from kpcache.simulator.planner import Need, Trial, cores_for, settled, size_pools, try_out
from kpcache.simulator.world import PoolSize
from kpcache.worker.generate import generate

COST_S = {spec: SPECS[spec].keygen_cost_s for spec in MAKEABLE}


def answer(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    assert main(["plan", "--json", *argv]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


# Arguments


def test_rates_have_units_and_a_spec_may_have_a_burst_as_well() -> None:
    needs = parse_needs(
        ["RSA_2048=5/s", "RSA_4096=30/min", "RSA_3072=0.5/h"], ["RSA_2048=500", "ML_KEM_768=9"]
    )
    assert needs == {
        "RSA_2048": Need(5.0, 500),
        "RSA_4096": Need(0.5, 0),
        "RSA_3072": Need(0.5 / 3600, 0),
        "ML_KEM_768": Need(0.0, 9),
    }


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "say what will be asked for"),
        (["--rate", "RSA_2048"], "must be SPEC=N"),
        (["--rate", "RSA_2048=5"], "as in 5/s"),
        (["--rate", "RSA_2048=5/d"], "as in 5/s"),
        (["--rate", "RSA_2048=0/s"], "as in 5/s"),
        (["--rate", "RSA_2048=-1/s"], "as in 5/s"),
        (["--rate", "RSA_2048=nan/s"], "as in 5/s"),
        (["--rate", "RSA_2048=inf/s"], "as in 5/s"),
        (["--rate", "SM2=1/s"], "SPEC must be one of"),
        (["--rate", "RSA_2048=1/s", "--rate", "RSA_2048=2/s"], "given twice"),
        (["--burst", "RSA_2048=x"], "a number of requests"),
        (["--burst", "RSA_2048=0"], "a number of requests"),
        (["--burst", "RSA_2048=1000000"], "a number of requests"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_a_line(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *argv]) == 2
    told = capsys.readouterr()
    assert (told.out, words in told.err, told.err.count("\n")) == ("", True, 1)


@pytest.mark.parametrize(
    "argv", [["--cores", "0"], ["--cores", "1025"], ["--chance", "0"], ["--chance", "x"]]
)
def test_wrong_numbers_are_exit_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["plan", "--rate", "RSA_2048=1/s", *argv])
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


# The answer


def test_a_plan_names_the_cores_the_pools_and_what_they_take(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "--rate", "RSA_2048=25/s", "--burst", "RSA_2048=100")
    assert found["cores"] == 3  # 25 x 65 ms = 1.6 CPUs, of which no more than 80 % are to be taken
    assert found["use"] == pytest.approx(25 * 0.065 / 3)
    pool = found["pools"]["RSA_2048"]
    assert pool["target"] >= 125 + 20  # a fifth is kept back from a single user
    assert pool["low_water"] >= pool["target"] / 5
    assert pool["fill_s"] == pytest.approx(pool["target"] * 0.065 / 3)
    # A burst's work, in the time that the rate leaves.
    assert found["full_again_s"] == pytest.approx(100 * 0.065 / (3 - 25 * 0.065))
    assert pool["simulated"]["requests"] >= 3500
    assert pool["simulated"]["dry"] <= 0.001 * pool["simulated"]["requests"] + 10


def test_the_table_ends_with_lines_for_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--rate", "RSA_2048=5/s", "--burst", "RSA_2048=50", "--rate", "ML_KEM_768=1/s"]) == 0
    out = capsys.readouterr().out
    assert "TO FILL" in out
    tables = tomllib.loads(out[out.index("[pools.") :])
    config = load(tables, defaults=Defaults("/run/k.sock", "/var/k", "/run/k", 2))
    assert int(config.pools["RSA_2048"].target) > 50
    assert set(config.pools) >= {"RSA_2048", "ML_KEM_768"}


def test_more_demand_takes_larger_pools_and_a_smaller_chance_too() -> None:
    def target(rate: float, chance: float, cores: int = 4) -> int:
        return size_pools({"RSA_2048": Need(rate, 0)}, COST_S, cores, chance).pools["RSA_2048"].size.target

    assert target(50, 0.001) > target(20, 0.001)
    assert target(50, 0.0001) > target(50, 0.001)
    assert target(50, 0.001, cores=8) < target(50, 0.001)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--rate", "RSA_4096=5/s", "--cores", "2"], "it takes 4 at least, better 5"),
        (["--rate", "RSA_4096=5000/s"], "no machine of up to 1024 will do"),
        (["--rate", "ECC_NIST_P256=3000/s", "--burst", "ECC_NIST_P256=99999"], "100000 is the most"),
    ],
)
def test_what_will_not_do_is_told_plainly(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *argv]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert words in told.err


def test_cores_follow_from_the_rates() -> None:
    needs = {"RSA_2048": Need(10.0, 500), "RSA_4096": Need(1.0, 0)}  # 0.65 + 0.7 CPUs
    assert (cores_for(needs, COST_S), cores_for(needs, COST_S, 0.98), cores_for({}, COST_S)) == (2, 2, 1)
    assert cores_for({"RSA_2048": Need(1.0, 0)}, {"RSA_2048": 0.8}) == 1


def test_targets_are_raised_until_a_trial_agrees() -> None:
    # One maker, and keys of RSA_4096 that keep it for seconds, beside a pool that lasts for half a one.
    needs = {"RSA_4096": Need(0.5, 0), "ECC_NIST_P256": Need(200.0, 0)}
    plan = size_pools(needs, COST_S, 1, 0.001)
    small = replace(plan.pools["ECC_NIST_P256"], size=PoolSize(100, 25))
    plan = replace(plan, pools={**plan.pools, "ECC_NIST_P256": small})
    assert try_out(plan, COST_S, random.Random(1)).exceeds(0.001) == ["ECC_NIST_P256"]
    raised, trial = settled(plan, COST_S, 0.001, random.Random(1))
    assert not trial.exceeds(0.001)
    assert raised.pools["ECC_NIST_P256"].size.target > plan.pools["ECC_NIST_P256"].size.target
    assert raised.pools["RSA_4096"] == plan.pools["RSA_4096"]


def test_a_few_dry_requests_prove_nothing() -> None:
    assert not Trial({"RSA_2048": 1000}, {"RSA_2048": 11}).exceeds(0.001)
    assert Trial({"RSA_2048": 1000}, {"RSA_2048": 12}).exceeds(0.001) == ["RSA_2048"]


def test_a_pair_takes_the_memory_that_was_told() -> None:
    for spec in MAKEABLE:
        if spec not in ("RSA_3072", "RSA_4096"):  # a second each, and of the same form
            private, public = generate(spec)
            assert SPECS[spec].pair_bytes - 300 == pytest.approx(len(private) + len(public), rel=0.01)


def test_measured_costs_are_of_this_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kpcache.cli.plan._MEASURE_S", 0.05)
    found = answer(capsys, "--measure", "--rate", "ECC_NIST_P256=10/s")
    assert 0 < found["pools"]["ECC_NIST_P256"]["cost_s"] < 0.01
    assert found["pools"]["ECC_NIST_P256"]["cost_s"] != COST_S["ECC_NIST_P256"]

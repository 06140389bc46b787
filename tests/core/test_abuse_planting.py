"""How the abuse harness plants its faults, and what its exit code says: what is renamed in the product must
not turn a fault into nothing."""

import types
from pathlib import Path

import pytest

from bench.abuse import guards, points
from bench.abuse.outcome import Outcome, exit_code
from bench.abuse.planting import ACTIONS, Plan, PlantedError, PlantError, Trigger, owner_of, plant
from bench.abuse.records import Violation
from bench.abuse.soak import slope


def test_all_that_is_planted_in_is_there() -> None:
    points.require_all()
    guards.require_all()


@pytest.mark.parametrize(
    "target",
    [
        "kpcache.daemon.stock:Stock._no_such_step",
        "kpcache.daemon.stock:NoSuchClass._take",
        "kpcache.daemon.no_such_module:Stock._take",
        "kpcache.worker.maker:no_such_function",
    ],
)
def test_what_is_gone_is_told(target: str) -> None:
    with pytest.raises(PlantError, match="is no more"):
        owner_of(target)
    with pytest.raises(PlantError, match="is no more"):
        plant(target, lambda original: original)


def test_a_failpoint_whose_step_is_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = points.Point("daemon", "kpcache.daemon.stock:Stock._no_such_step", points.after)
    monkeypatch.setitem(points.POINTS, "gone", gone)
    with pytest.raises(PlantError, match="_no_such_step"):
        points.require_all()
    with pytest.raises(PlantError, match="_no_such_step"):
        points.install("gone:kill", "", "daemon")


def test_every_role_has_failpoints_and_every_guard_something_to_turn_off() -> None:
    assert {point.role for point in points.POINTS.values()} == {"daemon", "shard", "maker"}
    assert all(guard.off for guard in guards.GUARDS.values())


def fired(trigger: Trigger, passes: int) -> list[int]:
    return [number for number in range(1, passes + 1) if trigger.fires()]


def test_when_a_failpoint_fires() -> None:
    assert fired(Trigger("taken:kill", ""), 3) == [1, 2, 3]
    assert fired(Trigger("taken:raise:3", ""), 10) == [3, 6, 9]
    assert fired(Trigger("taken:delay:1.0", ""), 3) == [1, 2, 3]
    assert fired(Trigger("taken:delay:0.0", ""), 100) == []


@pytest.mark.parametrize(
    "fail", ["taken", "taken:explode", "taken:kill:often", "taken:kill:0", "taken:kill:-1"]
)
def test_a_failpoint_that_is_described_wrongly(fail: str) -> None:
    with pytest.raises(PlantError):
        Trigger(fail, "")


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(PlantError, match="no failpoint 'nowhere'"):
        points.install("nowhere:kill", "", "daemon")
    with pytest.raises(PlantError, match="no guard 'nothing'"):
        guards.install("nothing", "", "daemon")


def test_what_fires_is_marked_before_it_acts(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    owner = types.SimpleNamespace(steps=[])
    planted = points.before(lambda: owner.steps.append(1), Trigger("taken:raise:2", str(marks)))
    planted()
    with pytest.raises(PlantedError):
        planted()
    assert owner.steps == [1]
    assert [line.split()[:2] for line in marks.read_text().splitlines()] == [["taken", "raise"]]


def test_after_a_step_its_result_is_passed_on(tmp_path: Path) -> None:
    planted = points.after(lambda: 42, Trigger("taken:delay:2", str(tmp_path / "marks")))
    assert [planted(), planted()] == [42, 42]


def test_a_plan_travels_as_text() -> None:
    plan = Plan(fail="taken:kill:3", marks="/marks", off="batch_sequence", healthy_life_s=0.5)
    assert Plan.decode(plan.encode()) == plan
    assert "stall" in ACTIONS


def test_exit_codes() -> None:
    good, void, bad = Outcome("good"), Outcome("void"), Outcome("bad")
    void.void.append("a guard was off, and nothing was reported")
    bad.violations.append(Violation("twice", "evidence"))
    assert exit_code({"good": good}) == 0
    assert exit_code({"good": good, "void": void}) == 3
    assert exit_code({"void": void, "bad": bad}) == 1


def test_a_figure_beyond_its_limit_is_missed() -> None:
    outcome = Outcome("x")
    outcome.figure("quick", 0.4, "s", 0.5)
    outcome.figure("slow", 0.5, "s", 0.5)
    outcome.figure("told", 9.0, "s")
    assert [figure.verdict for figure in outcome.figures] == ["met", "missed", ""]


def test_the_slope_of_what_grows() -> None:
    assert slope([(0.0, 10), (1.0, 12), (2.0, 14)]) == pytest.approx(2.0)
    assert slope([(0.0, 5), (7.0, 5)]) == 0.0
    assert slope([(3.0, 5)]) == 0.0

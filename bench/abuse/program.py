"""``kpcache`` with faults planted in it, to abuse it: never for use.

``program.py PLAN serve ...`` is the daemon; the workers that it starts are this program too, with ``shard``
or ``maker`` before the plan. What can be planted: ``planting.Plan``.
"""

import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[2]))  # -P keeps it off, and shards start in /

from bench.abuse import guards, points
from bench.abuse.planting import Plan, PlantError

EXIT_VOID = 70


def command(plan: Plan) -> list[str]:
    """How to start the daemon; what ``kpcache`` would be told follows."""
    return [sys.executable, "-P", __file__, plan.encode()]


def _start_our_own(plan: Plan) -> None:
    """Have workers started from this file, too."""
    from kpcache.worker import process

    def planted(module: str) -> list[str]:
        role = module.rpartition(".")[2]
        if role not in ("shard", "maker"):
            raise PlantError(f"a worker program that is not known here: {module}")
        return [sys.executable, "-P", str(Path(__file__).resolve()), role, plan.encode()]

    if not callable(vars(process).get("command")):
        raise PlantError("workers are started in another way now")
    process.command = planted


def _set_clock_wrong(file: str) -> None:
    """The wall clock is wrong by as many seconds as stand in ``file``, at each moment."""
    honest = time.time

    def wrong() -> float:
        return honest() + float(Path(file).read_text() or 0.0)

    time.time = wrong


def _plant(plan: Plan, role: str) -> None:
    if plan.fail:
        points.install(plan.fail, plan.marks, role)
    if plan.off or plan.fault:
        guards.install(plan.off, plan.fault, role)
    if plan.healthy_life_s is not None:
        from kpcache.core import restart

        if not isinstance(vars(restart).get("HEALTHY_LIFE_S"), float):
            raise PlantError("when a worker's death is its first again is decided in another way now")
        vars(restart)["HEALTHY_LIFE_S"] = plan.healthy_life_s


def _daemon(plan: Plan) -> int:
    from kpcache.worker.wiping import start_again_to_wipe

    start_again_to_wipe()  # as serve does, and as early: later it would cost a second start of all the rest
    if plan.clock:
        _set_clock_wrong(plan.clock)  # before anything takes the function as it is
    from kpcache.cli.main import main
    from kpcache.daemon import main as _all_of_it  # noqa: F401 - what is planted in must be loaded by now

    _plant(plan, "daemon")
    _start_our_own(plan)
    return main()


def _shard(plan: Plan) -> int:
    from kpcache.worker import shard

    _plant(plan, "shard")
    _start_our_own(plan)
    return shard.main()


def _maker(plan: Plan) -> int:
    from kpcache.worker import maker

    _plant(plan, "maker")
    return maker.main()


def main() -> int:
    role = sys.argv.pop(1) if sys.argv[1] in ("shard", "maker") else "daemon"
    plan = Plan.decode(sys.argv.pop(1))
    try:
        return {"daemon": _daemon, "shard": _shard, "maker": _maker}[role](plan)
    except PlantError as error:
        print(f"abuse: {error}", file=sys.stderr)
        return EXIT_VOID


if __name__ == "__main__":
    sys.exit(main())

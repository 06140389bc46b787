"""What the daemon costs when it has nothing to do: CPU of all its processes while its pools are full."""

import time

from bench.daemon import Daemon
from bench.nest import nest
from bench.report import Result, Row
from bench.run import Run
from bench.stats import Interval, judge
from kpcache.core.specs import MAKEABLE

_LIMIT = 0.1  # per cent of one CPU
_PAIRS = 2  # of each spec: how many lie in a full pool does not matter to a daemon at rest
_SETTLE_S = 1.0


def measure(run: Run) -> Result:
    """The part. The client that asked stays connected."""
    spans, each_s = run.size(12, 5), run.size(5, 1)
    with nest() as home:
        daemon = Daemon(home, "daemon", dict.fromkeys(MAKEABLE, (_PAIRS, 1)))
        daemon.wait_full(run.display, "rest: filling the pools")
        pids = daemon.pids()
        time.sleep(_SETTLE_S)
        used = []
        with run.display.step("rest: watching", spans) as step:
            for _ in range(spans):
                before, started = daemon.cpu_s(pids), time.monotonic()
                time.sleep(each_s)
                after, wall_s = daemon.cpu_s(pids), time.monotonic() - started
                used.append({role: 100 * (after[role] - before[role]) / wall_s for role in pids})
                step.advance()
        daemon.client.close()
    totals = [sum(roles.values()) for roles in used]
    mean = sum(totals) / spans
    # The spread of the spans itself: there are too few for more, and nothing here is random.
    figure = Interval(mean, min(totals), max(totals))
    processes = sum(map(len, pids.values()))
    return Result(
        [
            Row(
                "rest",
                "CPU at rest, all processes",
                mean,
                "% CPU",
                limit=f"at most {_LIMIT:g} %",
                verdict=judge(figure, _LIMIT),
            )
        ],
        [f"{processes} processes, pools of all specs full, watched for {spans * each_s} s by /proc"],
        {"spans": used},
    )

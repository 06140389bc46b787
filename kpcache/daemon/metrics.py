"""All metrics of the daemon, read from its parts when somebody asks. Nothing in them is secret.

The parts count what they do themselves, and outlive every worker: so no counter falls when one dies. What
comes from clients or workers is a label only where it is one of a closed set.
"""

import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.core import Metric

from kpcache import __version__
from kpcache.core import segment
from kpcache.core.histogram import Histogram
from kpcache.daemon.alarm import Alarm
from kpcache.daemon.dispatcher import Gate
from kpcache.daemon.families import counter, flag, gauge, histogram, info
from kpcache.daemon.fence import Fence
from kpcache.daemon.floor import Floor
from kpcache.daemon.ledger import Ledger
from kpcache.daemon.pool_metrics import counts_of, pairs, pools
from kpcache.daemon.reload import Reloader
from kpcache.daemon.reserve import Reserve
from kpcache.daemon.server import Server
from kpcache.daemon.stock import Stock
from kpcache.daemon.supervisor import Supervisor
from kpcache.daemon.tally import Tally
from kpcache.daemon.worker_record import STATES
from kpcache.worker.generation import MODES


class Metrics:
    """Reads the parts. ``is_ready()`` is the status's, ``keyring()`` what that shows of the keyring."""

    def __init__(
        self,
        stock: Stock,
        supervisor: Supervisor,
        gate: Gate,
        fence: Fence,
        floor: Floor,
        ledger: Ledger,
        alarm: Alarm,
        reserve: Reserve,
        tally: Tally,
        server: Server,
        keyring: Callable[[], dict[str, Any]],
        reloader: Reloader,
        is_ready: Callable[[], bool],
    ) -> None:
        self._stock = stock
        self._supervisor = supervisor
        self._gate = gate
        self._fence = fence
        self._floor = floor
        self._ledger = ledger
        self._alarm = alarm
        self._reserve = reserve
        self._tally = tally
        self._server = server
        self._keyring = keyring
        self._reloader = reloader
        self._is_ready = is_ready
        self._started_s = time.time()
        self._build = {"version": __version__, "python_version": platform.python_version()}

    def families(self) -> Iterator[Metric]:
        """Every family, in small pieces (``families``): take as many at a time as there is leisure for.

        What is told of pairs is of one moment, that of the first piece, so that it adds up.
        """
        counts = counts_of(self._stock)
        yield from self._daemon()
        yield from pairs(counts)
        yield from pools(self._stock, self._floor)
        yield from self._requests()
        yield from self._clients()
        yield from self._workers()
        yield from self._ledgers()
        yield from self._reserves()
        yield from self._keys()
        yield from self._settings()

    def _daemon(self) -> Iterator[Metric]:
        gate, fence = self._gate, self._fence
        yield from info("build", "What runs.", self._build)
        yield from gauge(
            "start_time_seconds", "When the daemon was started, in Unix time.", (), [((), self._started_s)]
        )
        yield from flag("ready", "Every pool is at the level of daemon.ready_level.", self._is_ready())
        yield from flag("issuing", "Pairs are given out.", gate.issuing)
        yield from flag("alarm", "Two pairs shared a prime or a public key: none is issued.", gate.alarm)
        yield from flag("quiesced", "None is issued while a snapshot is taken.", gate.quiesced)
        yield from flag("draining", "The daemon stops.", gate.draining)
        mode = fence.source.mode
        yield from gauge(
            "clone_guard", "How copies of this machine are noticed; none: they are not.", ("mode",),
            [((each,), each == mode) for each in MODES],
        )  # fmt: skip
        yield from counter(
            "clone_guard_changes_total", "Copies of this machine that were noticed, or may have been made.",
            (), [((), fence.changes)],
        )  # fmt: skip

    def _requests(self) -> Iterator[Metric]:
        tally = self._tally
        yield from histogram(
            "request_duration_seconds", "From the request's last byte until its answer is with the kernel.",
            ("operation", "spec", "provider", "outcome"), [*tally.times.items()],
        )  # fmt: skip
        yield from counter(
            "requests_refused_total", "Refusals, dry pools among them, by the error's Code and Reason.",
            ("operation", "code", "reason"), [*tally.refusals.items()],
        )  # fmt: skip
        yield from histogram(
            "wrap_duration_seconds", "Encrypting one pair's private key.", ("provider",),
            _by_one(tally.wraps),
        )  # fmt: skip

    def _clients(self) -> Iterator[Metric]:
        clients = self._server.clients()
        yield from gauge("connections", "Open now.", (), [((), self._server.connections)])
        yield from counter("connections_cut_total", "Cut to make room.", (), [((), clients["cut"])])
        yield from counter(
            "connections_broken_total", "Ended for bytes that are not the protocol.",
            (), [((), self._tally.broken)],
        )  # fmt: skip
        yield from counter(
            "notifications_total", "Messages that want no answer, and do nothing.",
            (), [((), clients["notifications"])],
        )  # fmt: skip

    def _workers(self) -> Iterator[Metric]:
        workers = self._supervisor.workers
        states = Counter((worker.role, worker.state) for worker in workers)
        restarts: Counter[str] = Counter()
        deaths: Counter[str] = Counter()
        for worker in workers:
            restarts[worker.role] += worker.restarts
            deaths[worker.role] += worker.deaths
        yield from gauge(
            "workers", "Worker processes by what they do.", ("role", "state"),
            [((role, state), states[role, state]) for role in restarts for state in STATES],
        )  # fmt: skip
        yield from counter(
            "worker_restarts_total", "Starts after the first, also of those that had worked long enough.",
            ("role",), [((role,), count) for role, count in restarts.items()],
        )  # fmt: skip
        yield from counter(
            "worker_deaths_total", "Ends that nobody asked for, and failed starts.", ("role",),
            [((role,), count) for role, count in deaths.items()],
        )  # fmt: skip

    def _ledgers(self) -> Iterator[Metric]:
        ledger = self._ledger
        status = ledger.status()
        yield from histogram(
            "ledger_commit_duration_seconds", "One durable commit.", (), [((), ledger.commit_times)]
        )
        yield from gauge(
            "ledger_fingerprints", "What it knows: two of an RSA pair.", (), [((), status["tags"])]
        )
        yield from gauge("ledger_bytes", "On the disk, of the last minute.", (), [((), status["bytes"])])
        yield from gauge(
            "ledger_waiting_pairs", "Pairs made and not yet recorded.", (), [((), status["waiting"])]
        )
        yield from flag("ledger_available", "It can be written, so that pairs are made.", status["available"])
        yield from flag(
            "ledger_rolled_back", "It lacks what was recorded, until acknowledged.",
            bool(status["rolled_back"]),
        )  # fmt: skip
        yield from counter("ledger_failures_total", "Failed attempts to use it.", (), [((), ledger.failures)])

    def _reserves(self) -> Iterator[Metric]:
        reserve = self._reserve
        status = reserve.status()
        yield from flag("reserve_on", "Pairs wait out a restart.", status["on"])
        yield from gauge(
            "restart_burnt_pairs", "Pairs that the start before this one had and that did not come back.",
            (), [((), status["burnt_last_restart"])],
        )  # fmt: skip
        reasons = sorted(segment.REASONS)
        yield from counter(
            "reserve_dropped_segments_total", "Files of sealed pairs that were not brought back.",
            ("reason",), [((each,), reserve.dropped_segments[each]) for each in reasons],
        )  # fmt: skip
        yield from counter(
            "reserve_dropped_pairs_total", "Single pairs in others that were not.",
            ("reason",), [((each,), reserve.dropped_pairs[each]) for each in reasons],
        )  # fmt: skip

    def _keys(self) -> Iterator[Metric]:
        status = self._keyring()
        yield from gauge(
            "keyring_unexported_changes", "Changes that no known export has.",
            (), [((), status["unexported_changes"])],
        )  # fmt: skip
        yield from flag("keyring_fault", "Its file is not as it should be.", bool(status["fault"]))
        yield from flag(
            "keyring_default_key_enabled", "The key of keyring.default_alias can be used.",
            status["default_key_state"] == "Enabled",
        )  # fmt: skip

    def _settings(self) -> Iterator[Metric]:
        reloader = self._reloader
        yield from flag(
            "config_last_reload_successful", "The file was sound when it was last read.",
            reloader.last_successful,
        )  # fmt: skip
        yield from gauge(
            "config_last_reload_success_timestamp_seconds",
            "When a sound file was read last, in Unix time; the start counts.",
            (), [((), reloader.last_success_s)],
        )  # fmt: skip
        yield from counter(
            "config_reloads_total", "Reloads asked for.", ("outcome",),
            [((outcome,), count) for outcome, count in reloader.outcomes.items()],
        )  # fmt: skip


def _by_one(times: dict[str, Histogram]) -> list[tuple[tuple[str], Histogram]]:
    return [((label,), each) for label, each in times.items()]

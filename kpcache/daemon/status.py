"""The answer of ``kpcache.Status``: what the daemon has, as plain values. Nothing in it is secret."""

from collections.abc import Callable
from typing import Any

import trio

from kpcache import __version__
from kpcache.core.readiness import FULL, is_reached, required
from kpcache.daemon.alarm import Alarm
from kpcache.daemon.dispatcher import Gate
from kpcache.daemon.fence import Fence
from kpcache.daemon.floor import Floor
from kpcache.daemon.ledger import Ledger
from kpcache.daemon.memory import memory_status
from kpcache.daemon.pools import Pool
from kpcache.daemon.reserve import Reserve
from kpcache.daemon.stock import Stock
from kpcache.daemon.supervisor import Supervisor
from kpcache.keyring import Keyring, views


def pool_status(pool: Pool) -> dict[str, int]:
    """One pool. generated = issued + discarded + held + ready + in_hand at every moment."""
    book = pool.book
    return {
        "ready": book.ready,
        "held": book.held,
        "target": pool.target,
        "low_water": pool.low_water,
        "issued": book.issued,
        "dry": book.dry,
        "generated": book.generated,
        "restored": book.restored,
        "discarded": book.discarded.total(),
        "in_hand": book.in_hand,
        "waiting": len(pool.desk.queue),
    }


def keyring_status(keyring: Keyring, default_alias: str, sealed: str, fault: str) -> dict[str, Any]:
    """The keyring in force. ``sealed`` is ``[keyring].unlock``: "file" is a plain file. ``fault`` is what is
    wrong with the file; empty if nothing is."""
    default = keyring.resolve(default_alias)
    return {
        "default_alias": default_alias,
        "default_key_arn": default.arn,
        "default_key_state": default.state,
        "sealed": sealed,
        "fault": fault,
        **views.keyring_status(keyring.content),
    }


class StatusMaker:
    """Makes statuses."""

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
        keyring: Callable[[], dict[str, Any]],
        ready_level: str,
        config: Callable[[], dict[str, Any]],
    ) -> None:
        """``keyring`` makes what is shown of the keyring, ``config`` what is of the file of settings;
        ``ready_level`` is one of ``core/readiness``."""
        self.ready_level = ready_level
        self._stock = stock
        self._supervisor = supervisor
        self._gate = gate
        self._fence = fence
        self._floor = floor
        self._ledger = ledger
        self._alarm = alarm
        self._reserve = reserve
        self._keyring = keyring
        self._config = config
        self._started = trio.current_time()
        self._connections: Callable[[], int] = lambda: 0
        self._clients: Callable[[], dict[str, int]] = dict

    def watch_clients(self, connections: Callable[[], int], clients: Callable[[], dict[str, int]]) -> None:
        """Have the server's counts shown: the server is made after what answers its requests."""
        self._connections, self._clients = connections, clients

    @property
    def is_ready(self) -> bool:
        """Every pool is at the configured level."""
        return not self.too_empty()

    def too_empty(self) -> str:
        """A pool that keeps ``is_ready`` from being true, in words; empty if none does."""
        level = self.ready_level
        for spec, pool in self._stock.pools.items():
            if not is_reached(level, [pool.fill]):
                needed = required(level, pool.fill)
                return f"{spec} has {pool.fill.available} of the {needed} pairs of daemon.ready_level {level}"
        return ""

    @property
    def is_full(self) -> bool:
        """Every pool is at its target."""
        return is_reached(FULL, (pool.fill for pool in self._stock.pools.values()))

    def status(self) -> dict[str, Any]:
        pools = self._stock.pools
        return {
            "version": __version__,
            "ready": self.is_ready,
            "ready_level": self.ready_level,
            "full": self.is_full,
            "issuing": self._gate.issuing,
            "clone_guard": self._fence.source.mode,
            "clone_guard_lacks": "; ".join(self._fence.lacks),
            "generation": self._fence.number,
            "quiesced": self._gate.quiesced,
            "draining": self._gate.draining,
            "uptime_s": round(trio.current_time() - self._started, 3),
            "pools": {spec: pool_status(pool) for spec, pool in pools.items()},
            "discarded": {
                spec: dict(pool.book.discarded) for spec, pool in pools.items() if pool.book.discarded
            },
            "ledger": self._ledger.status(),
            "alarm": self._alarm.status(),
            "reserve": self._reserve.status(),
            "refill": self._floor.manners,
            "memory": memory_status(),
            "workers": [worker.status() for worker in self._supervisor.workers],
            "keyring": self._keyring(),
            "config": self._config(),
            "connections": self._connections(),
            "clients": self._clients(),
        }

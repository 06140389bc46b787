"""Puts the parts of the daemon together, each with what it needs of the others.

Some need one another in a circle; those are reached by a lambda, which looks when it is called.
"""

import os
import time
from typing import Any

import trio

from kpcache.core.settings import Config
from kpcache.daemon.administrator import Administrator
from kpcache.daemon.alarm import Alarm, Incidents
from kpcache.daemon.descriptors import limits_of, take_over
from kpcache.daemon.dispatcher import Dispatcher, Gate
from kpcache.daemon.emergencies import Emergencies
from kpcache.daemon.exposition import Exposition
from kpcache.daemon.fence import Fence
from kpcache.daemon.http import HttpServer
from kpcache.daemon.http_pages import Pages, Readiness
from kpcache.daemon.ledger import Ledger
from kpcache.daemon.ledger_start import Opened
from kpcache.daemon.metrics import Metrics
from kpcache.daemon.notices import log
from kpcache.daemon.pooling import Pooling
from kpcache.daemon.quiesce import Quiescence
from kpcache.daemon.reload import Reloader, Source
from kpcache.daemon.reserve import Reserve
from kpcache.daemon.reserve_start import open_reserve
from kpcache.daemon.server import Server
from kpcache.daemon.status import StatusMaker, keyring_status
from kpcache.daemon.supervisor import MakerSettings, Supervisor
from kpcache.keyring import Keyring
from kpcache.keyring.vault import Vault
from kpcache.worker.generation import open_source


class Parts:
    """All parts, at rest. ``background`` must be set before any of them runs."""

    background: trio.Nursery

    def __init__(self, config: Config, vault: Vault, opened: Opened, source: Source | None) -> None:
        """``source``: where the settings can be read again."""
        self._config = config
        self._vault = vault
        self._opened = opened
        self.gate = Gate()
        self.limits = limits_of(config.requests)
        self.fence = Fence(*open_source(config.clone_guard.vmclock, config.clone_guard.kernel_log))
        self.keyring = Keyring(vault.content, time.monotonic, os.urandom)
        self.alarm = Alarm(
            self.gate,
            stop=lambda: self.emergencies.stop_issuing(),
            resume=lambda: self.emergencies.issue_again(),
        )
        self.reloader = Reloader(config, source, self.apply)
        self._make_pools()
        self._make_emergencies()
        self._make_answers()
        self._make_pages()
        self.fence.on_change(self.emergencies.burn_copied)
        self._ledger_is(not opened.fault)
        self.alarm.recall(opened.store.standing, opened.kept)

    def _make_pools(self) -> None:
        """What makes pairs, records, holds and keeps them."""
        config, (store, fault, kept) = self._config, self._opened
        workers, secrets = config.workers, self._vault.content
        setup = open_reserve(
            config.daemon.runtime_dir,
            secrets.reserve_secret,
            guard=self.fence.source.mode,
            life=store.life,
            ledger_fault=fault,
        )
        self.supervisor = Supervisor(
            _placement(workers.shards, workers.makers),
            MakerSettings(
                secrets.tag_key, workers.scheduling, workers.maker_max_keys, workers.maker_max_age_s
            ),
            self.fence,
            setup.init,
        )
        self.ledger = Ledger(
            store,
            kept,
            fault=fault,
            alarm=self.alarm.find,
            room=lambda: self.floor.wanted.set(),
            availability=self._ledger_is,
        )
        cpus = len(os.sched_getaffinity(0))
        self._pooling = Pooling(config, self.supervisor, self.ledger, self.fence, cpus)
        self.stock, self.floor = self._pooling.stock, self._pooling.floor
        self.learned = self._pooling.learned
        self.reserve = Reserve(
            setup, self._generation, self.stock, self.supervisor.send, self.ledger,
            self._why_no_reserve, workers.shards,
        )  # fmt: skip

    def _make_emergencies(self) -> None:
        """What keeps pairs that are there from being given out."""
        self.emergencies = Emergencies(
            self.gate, self.stock, self.floor, self.supervisor, self.reserve, self.keyring, self.fence,
            lambda: self.background.start_soon(self.emergencies.forget_sealed, self.ledger.raise_floor),
        )  # fmt: skip
        self.quiescence = Quiescence(
            self.gate, self.stock, self.floor, self.supervisor, self.keyring, self.fence,
            lambda: self.server.cut_unread(), lambda: self.reserve.drop_all("quiesced"),
            self.ledger.raise_floor,
        )  # fmt: skip

    def _make_answers(self) -> None:
        """What answers clients and administrators."""
        alias, vault = self._config.keyring.default_alias, self._vault
        self.status = StatusMaker(
            self.stock, self.supervisor, self.gate, self.fence, self.floor, self.ledger, self.alarm,
            self.reserve,
            self._keyring_status,
            self._config.daemon.ready_level, self.reloader.status,
        )  # fmt: skip
        self.dispatcher = Dispatcher(self.stock, self.keyring, self.limits, self.gate, self.status.status)
        self.dispatcher.access.replace(tuple(each.rule for each in self._config.access))
        self.administrator = Administrator(
            self.dispatcher, self.gate, vault, self.keyring, alias, self.limits,
            Incidents(self.alarm, self.ledger), self.quiescence, self.reloader.reload,
        )  # fmt: skip
        self.server = Server(self.dispatcher, self.stock, self.limits)
        self.status.watch_clients(lambda: self.server.connections, self.server.clients)
        self.metrics = Metrics(
            self.stock, self.supervisor, self.gate, self.fence, self.floor, self.ledger, self.alarm,
            self.reserve, self.dispatcher.tally, self.server, self._keyring_status,
            self.reloader, lambda: self.status.is_ready,
        )  # fmt: skip

    def _keyring_status(self) -> dict[str, Any]:
        alias = self._config.keyring.default_alias
        return keyring_status(self.keyring, alias, self._vault.is_sealed, self.administrator.fault)

    def _make_pages(self) -> None:
        """What answers over HTTP."""
        self.readiness = Readiness(self.gate, self.status.too_empty)
        pages = Pages(Exposition(self.metrics.families), self.readiness, self._config.metrics.hosts)
        self.http = HttpServer(pages)

    def apply(self, config: Config) -> None:
        """Have other settings in force, as far as they can change. Without a checkpoint; the one step that
        the machine can refuse comes first."""
        limits = limits_of(config.requests)
        self._config = config
        log.setLevel(config.daemon.log_level.upper())
        take_over(self.limits, limits)
        self.administrator.go_by(limits)
        self._pooling.apply(config)
        self.dispatcher.access.replace(tuple(each.rule for each in config.access))
        self.status.ready_level = config.daemon.ready_level
        self._ledger_is(self.ledger.available)

    def _ledger_is(self, available: bool) -> None:
        self.emergencies.ledger_is(available or self._config.ledger.when_unavailable != "stop")

    def _why_no_reserve(self) -> str:
        """Why nothing may be brought back now, one of ``segment.REASONS``; empty if it may."""
        if self.gate.quiesced:
            return "quiesced"
        return (
            "alarm" if self.alarm.stands else "ledger_rolled_back" if self._opened.store.rolled_back else ""
        )

    def _generation(self) -> int:
        """Of the machine, looked at anew."""
        self.fence.stands()
        return self.fence.number


def _placement(shards: int, makers: int) -> list[int]:
    """How many makers each shard has: as even as can be."""
    return [makers // shards + (shard < makers % shards) for shard in range(shards)]

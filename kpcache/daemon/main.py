"""The life of the daemon, from top to bottom: start, ready, serve, drain, stop."""

import gc
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import trio

from kpcache.core.config import Config
from kpcache.daemon.administrator import Administrator
from kpcache.daemon.alarm import Alarm, Incidents
from kpcache.daemon.aws_unlock import unlock_of
from kpcache.daemon.descriptors import limits_of
from kpcache.daemon.dispatcher import Dispatcher, Gate
from kpcache.daemon.emergencies import Emergencies
from kpcache.daemon.fence import Fence
from kpcache.daemon.leaving import Leaving
from kpcache.daemon.ledger import Ledger
from kpcache.daemon.ledger_start import Opened, open_ledger
from kpcache.daemon.ledger_store import Store
from kpcache.daemon.notices import ReporterHandler, UnhurriedReporter, log, log_defect
from kpcache.daemon.pooling import pooling
from kpcache.daemon.quiesce import Quiescence
from kpcache.daemon.reporter import Reporter
from kpcache.daemon.reserve import Reserve
from kpcache.daemon.reserve_start import open_reserve
from kpcache.daemon.retirement import retire_old
from kpcache.daemon.server import Server
from kpcache.daemon.state import close_listener, listen, locked_folder
from kpcache.daemon.status import StatusMaker, keyring_status
from kpcache.daemon.supervisor import MakerSettings, Supervisor
from kpcache.errors import ConfigError
from kpcache.keyring import Keyring
from kpcache.keyring.vault import Vault
from kpcache.worker.generation import open_source
from kpcache.worker.process import StartError, protect

# A worker comes up in a fraction of a second; if none does, serving (and saying why) beats waiting on.
READY_TIMEOUT_S = 10.0
# Answers under way at a stop get as long as a request may wait for a pair, and this much more.
DRAIN_MARGIN_S = 1.0
# After the drain, for the workers' end and what the disk has to do: more than a slow one takes for a commit.
LEAVE_S = 10.0
PROGRESS_INTERVAL_S = 0.25

Listeners = list[tuple[socket.socket, Path]]  # the clients', then the administrators'


def run(config: Config, reporter: Reporter) -> int:
    """Serve until SIGTERM, SIGINT or SIGHUP (the terminal is gone). Returns the exit code: 0, or 1 after a
    defect. Raises ``ConfigError`` if it cannot start. Where a disk hangs at the end, it does not return, and
    the process ends with 1."""
    reporter = unhurried = UnhurriedReporter(reporter)
    handler = ReporterHandler(reporter)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        _protect()
        with ExitStack() as stack:
            leaving = Leaving(unhurried.close)
            stack.callback(leaving.cancel)
            stack.enter_context(locked_folder(config.daemon.state_dir))
            keyring = config.keyring
            vault = Vault.open(
                config.daemon.state_dir,
                create=keyring.create,
                default_alias=keyring.default_alias,
                unlock=unlock_of(keyring, os.environ),
            )
            opened = open_ledger(vault, config.daemon.state_dir, config.daemon.runtime_dir)
            stack.callback(opened.store.close)
            listeners: Listeners = []
            for path, mode in _socket_paths(config):
                listener = listen(path, mode, config.daemon.socket_group)
                stack.callback(close_listener, listener, path)
                listeners.append((listener, path))
            trio.run(_live, config, reporter, vault, opened, listeners, leaving)
    except ConfigError:
        raise
    except Exception as error:
        log_defect("the daemon, which ends", error)
        return 1
    else:
        return 0
    finally:
        log.removeHandler(handler)
        unhurried.close()


def _protect() -> None:
    try:
        protect("kpcache")
    except StartError as error:
        raise ConfigError(f"this process cannot be kept from being read by others: {error}") from error


async def _live(
    config: Config,
    reporter: Reporter,
    vault: Vault,
    opened: Opened,
    listeners: Listeners,
    leaving: Leaving,
) -> None:
    await Daemon(config, reporter, vault, opened, listeners, leaving).live()


class Daemon:
    """The parts, how they are wired, and the order in which they start and stop."""

    def __init__(
        self,
        config: Config,
        reporter: Reporter,
        vault: Vault,
        opened: Opened,
        listeners: Listeners,
        leaving: Leaving,
    ) -> None:
        ledger, ledger_fault, kept = opened
        self._config = config
        self._leaving = leaving
        self._reporter = reporter
        self._listeners = listeners
        self._gate = Gate()
        self._told_to_stop = trio.Event()
        self._told_to_hurry = trio.Event()
        self._limits = limits_of(config.requests)
        self._fence = Fence(*open_source(config.clone_guard.vmclock, config.clone_guard.kernel_log))
        reserve = open_reserve(
            config.daemon.runtime_dir,
            vault.content.reserve_secret,
            guard=self._fence.source.mode,
            life=ledger.life,
            ledger_fault=ledger_fault,
        )
        workers = config.workers
        self._supervisor = Supervisor(
            _placement(workers.shards, workers.makers),
            MakerSettings(
                vault.content.tag_key, workers.scheduling, workers.maker_max_keys, workers.maker_max_age_s
            ),
            self._fence,
            reserve.init,
        )
        self._alarm = Alarm(
            self._gate,
            stop=lambda: self._emergencies.stop_issuing(),
            resume=lambda: self._emergencies.issue_again(),
        )
        self._ledger = Ledger(
            ledger,
            kept,
            fault=ledger_fault,
            alarm=self._alarm.find,
            room=lambda: self._floor.wanted.set(),
            availability=self._ledger_is,
        )
        cpus = len(os.sched_getaffinity(0))
        self._stock, self._floor, self._learned = pooling(
            config, self._supervisor, self._ledger, self._fence, cpus
        )
        self._reserve = Reserve(
            reserve, self._generation, self._stock, self._supervisor.send, self._ledger,
            lambda: self._why_no_reserve(ledger), workers.shards,
        )  # fmt: skip
        alias = config.keyring.default_alias
        keyring = Keyring(vault.content, time.monotonic, os.urandom)
        self._emergencies = Emergencies(
            self._gate,
            self._stock,
            self._floor,
            self._supervisor,
            self._reserve,
            keyring,
            self._fence,
            lambda: self._background.start_soon(self._emergencies.forget_sealed, self._ledger.raise_floor),
        )
        self._status = StatusMaker(
            self._stock, self._supervisor, self._gate, self._fence, self._floor, self._ledger, self._alarm,
            self._reserve,
            lambda: keyring_status(keyring, alias, vault.is_sealed, self._administrator.fault),
            config.daemon.ready_level,
        )  # fmt: skip
        self._dispatcher = Dispatcher(self._stock, keyring, self._limits, self._gate, self._status.status)
        self._administrator = Administrator(
            self._dispatcher, self._gate, vault, keyring, alias, self._limits,
            Incidents(self._alarm, self._ledger),
            Quiescence(
                self._gate, self._stock, self._floor, self._supervisor, keyring, self._fence,
                lambda: self._server.cut_unread(), lambda: self._reserve.drop_all("quiesced"),
                self._ledger.raise_floor,
            ),
        )  # fmt: skip
        self._server = Server(self._dispatcher, self._stock, self._limits)
        self._status.watch_clients(lambda: self._server.connections, self._server.clients)
        self._fence.on_change(self._emergencies.burn_copied)
        self._ledger_is(not ledger_fault)
        self._alarm.recall(ledger.standing, kept)

    _background: trio.Nursery

    async def live(self) -> None:
        """Start the workers, serve until told to stop, drain, stop."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as workers:
                self._background = workers
                workers.start_soon(self._supervisor.run, self._stock, self._floor, self._reserve)
                workers.start_soon(self._reserve.run)
                workers.start_soon(self._floor.run)
                workers.start_soon(self._ledger.run)
                workers.start_soon(retire_old, self._stock)
                workers.start_soon(self._fence.watch)
                if self._learned is not None:
                    workers.start_soon(self._learned.run)
                workers.start_soon(self._administrator.run)
                workers.start_soon(self._heed, signals)
                workers.start_soon(self._leave_in_time)
                await _first_of(self._wait_useful, self._told_to_stop.wait, READY_TIMEOUT_S)
                if not self._told_to_stop.is_set():
                    async with trio.open_nursery() as connections:
                        await self._serve(connections)
                        await self._drain()
                        connections.cancel_scope.cancel()
                self._reserve.leave()
                self._stock.burn_ready("shutdown")
                workers.cancel_scope.cancel()

    async def _wait_useful(self) -> None:
        """Until there are pairs to give out, or makers of some: what is back need not wait for those."""
        await _first_of(self._supervisor.wait_settled, self._reserve.wait_back, READY_TIMEOUT_S)

    async def _heed(self, signals: AsyncIterator[int]) -> None:
        """The first signal begins the drain, a second ends it at once."""
        async for _ in signals:
            if self._told_to_stop.is_set():
                self._told_to_hurry.set()
            self._told_to_stop.set()

    async def _leave_in_time(self) -> None:
        """When the end begins, after the drain or a defect, it is bounded."""
        try:
            await trio.sleep_forever()
        finally:
            self._leaving.within(LEAVE_S)

    async def _serve(self, connections: trio.Nursery) -> None:
        """Accept connections until a signal comes; then no more, and nobody finds the sockets."""
        async with trio.open_nursery() as accepting:
            (clients, _), (administrators, _) = self._listeners
            accepting.start_soon(self._server.serve, clients, connections)
            accepting.start_soon(self._server.serve, administrators, connections, self._administrator)
            accepting.start_soon(self._show_first_fill)
            # What the start made lives on: keep the collector from walking through it ever again.
            gc.collect()
            gc.freeze()
            daemon = self._config.daemon
            status = self._status.status()
            self._reporter.serving(status, socket=str(daemon.socket), state_dir=str(daemon.state_dir))
            if status["keyring"]["sealed"] == "file":
                log.info(
                    "the keyring is a plain file: whoever gets this disk or a backup of it can open every "
                    "blob; to seal it, set keyring.unlock"
                )
            if not status["memory"]["wiped_on_free"]:
                log.info(
                    "freed memory is not overwritten, so keys may stay in it for long after they were given "
                    'out; the README\'s "Security" tells what that takes'
                )
            await self._told_to_stop.wait()
            accepting.cancel_scope.cancel()
        for listener, path in self._listeners:
            close_listener(listener, path)

    async def _show_first_fill(self) -> None:
        """Tell the reporter how the pools fill, until they are full for the first time."""
        while not self._status.is_full:
            self._reporter.progress(self._status.status())
            await trio.sleep(PROGRESS_INTERVAL_S)
        self._reporter.full(self._status.status())

    async def _drain(self) -> None:
        """Let answers under way finish, within a deadline."""
        self._reporter.stopping()
        self._gate.draining = True
        timeout_s = self._limits.wait_timeout_s + DRAIN_MARGIN_S
        await _first_of(self._server.wait_no_answers_owed, self._told_to_hurry.wait, timeout_s)
        self._floor.stop("drain")

    def _ledger_is(self, available: bool) -> None:
        if self._config.ledger.when_unavailable == "stop":
            self._emergencies.ledger_is(available)

    def _why_no_reserve(self, ledger: Store) -> str:
        """Why nothing may be brought back now, one of ``segment.REASONS``; empty if it may."""
        if self._gate.quiesced:
            return "quiesced"
        return "alarm" if self._alarm.stands else "ledger_rolled_back" if ledger.rolled_back else ""

    def _generation(self) -> int:
        """Of the machine, looked at anew."""
        self._fence.stands()
        return self._fence.number


async def _first_of(
    one: Callable[[], Awaitable[None]], other: Callable[[], Awaitable[None]], timeout_s: float
) -> None:
    """Wait until the first of the two is over, or the time is."""
    with trio.move_on_after(timeout_s):
        async with trio.open_nursery() as nursery:

            async def run(wait: Callable[[], Awaitable[None]]) -> None:
                await wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(run, one)
            nursery.start_soon(run, other)


def _socket_paths(config: Config) -> list[tuple[Path, int]]:
    """The client socket, and beside it the one for administration, which is for its owner alone."""
    path = config.daemon.socket
    return [(path, config.daemon.socket_mode), (path.with_name("admin.sock"), 0o600)]


def _placement(shards: int, makers: int) -> list[int]:
    """How many makers each shard has: as even as can be."""
    return [makers // shards + (shard < makers % shards) for shard in range(shards)]

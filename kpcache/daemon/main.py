"""The life of the daemon, from top to bottom: start, ready, serve, drain, stop."""

import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import trio

from kpcache.core.settings import Config
from kpcache.daemon.aws_unlock import unlock_of
from kpcache.daemon.http_listener import http_listener
from kpcache.daemon.leaving import Leaving
from kpcache.daemon.ledger_start import Opened, open_ledger
from kpcache.daemon.notices import ReporterHandler, UnhurriedReporter, log, log_defect
from kpcache.daemon.parts import Parts
from kpcache.daemon.reload import Source
from kpcache.daemon.reporter import Reporter
from kpcache.daemon.retirement import retire_old
from kpcache.daemon.state import close_listener, listen, locked_folder
from kpcache.daemon.terminal import Terminal
from kpcache.errors import ConfigError
from kpcache.keyring.vault import Vault
from kpcache.worker.process import StartError, protect

# A worker comes up in a fraction of a second; if none does, serving (and saying why) beats waiting on.
READY_TIMEOUT_S = 10.0
# Answers under way at a stop get as long as a request may wait for a pair, and this much more.
DRAIN_MARGIN_S = 1.0
# After the drain, for the workers' end and what the disk has to do: more than a slow one takes for a commit.
LEAVE_S = 10.0
PROGRESS_INTERVAL_S = 0.25

Listeners = list[tuple[socket.socket, Path]]  # the clients', then the administrators'


def run(config: Config, reporter: Reporter, source: Source | None = None) -> int:
    """Serve until SIGTERM, SIGINT, or SIGHUP when the terminal is gone; any other SIGHUP reloads the settings
    from ``source``. Returns the exit code: 0, or 1 after a defect. Raises ``ConfigError`` if it cannot start.
    Where a disk hangs at the end, it does not return, and the process ends with 1."""
    terminal = Terminal()
    reporter = unhurried = UnhurriedReporter(reporter)
    handler = ReporterHandler(reporter)
    log.addHandler(handler)
    log.setLevel(config.daemon.log_level.upper())
    log.propagate = False
    try:
        _protect()
        with ExitStack() as stack:
            stack.enter_context(terminal.early_hangups_noted())
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
            for path, mode, group, group_key in _socket_paths(config):
                listener = listen(path, mode, group, group_key=group_key)
                stack.callback(close_listener, listener, path)
                listeners.append((listener, path))
            http = stack.enter_context(http_listener(config.metrics.listen))
            trio.run(_live, config, reporter, vault, opened, listeners, http, leaving, source, terminal)
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
    http: socket.socket | None,
    leaving: Leaving,
    source: Source | None,
    terminal: Terminal,
) -> None:
    await Daemon(config, reporter, vault, opened, listeners, http, leaving, source, terminal).live()


class Daemon:
    """The order in which the parts start and stop."""

    def __init__(
        self,
        config: Config,
        reporter: Reporter,
        vault: Vault,
        opened: Opened,
        listeners: Listeners,
        http: socket.socket | None,
        leaving: Leaving,
        source: Source | None,
        terminal: Terminal,
    ) -> None:
        self._config = config
        self._reporter = reporter
        self._listeners = listeners
        self._http = http
        self._leaving = leaving
        self._terminal = terminal
        self._parts = Parts(config, vault, opened, source)
        self._told_to_stop = trio.Event()
        self._told_to_hurry = trio.Event()

    async def live(self) -> None:
        """Live, and answer over HTTP from the first turn of the loop to the last."""
        async with trio.open_nursery() as probes:
            if self._http is not None:
                probes.start_soon(self._parts.http.serve, self._http)
            await self._live()
            probes.cancel_scope.cancel()

    async def _live(self) -> None:
        """Start the workers, serve until told to stop, drain, stop."""
        parts = self._parts
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as workers:
                parts.background = workers
                workers.start_soon(parts.supervisor.run, parts.stock, parts.floor, parts.reserve)
                workers.start_soon(parts.reserve.run)
                workers.start_soon(parts.floor.run)
                workers.start_soon(parts.ledger.run)
                workers.start_soon(retire_old, parts.stock)
                workers.start_soon(parts.fence.watch)
                workers.start_soon(parts.learned.run)
                workers.start_soon(parts.administrator.run)
                workers.start_soon(parts.reloader.run)
                workers.start_soon(self._heed, signals)
                workers.start_soon(self._terminal.watch, self._terminal_gone)
                workers.start_soon(self._leave_in_time)
                await _first_of(self._wait_useful, self._told_to_stop.wait, READY_TIMEOUT_S)
                if not self._told_to_stop.is_set():
                    async with trio.open_nursery() as connections:
                        await self._serve(connections)
                        await self._drain()
                        connections.cancel_scope.cancel()
                parts.reserve.leave()
                parts.stock.burn_ready("shutdown")
                workers.cancel_scope.cancel()

    async def _wait_useful(self) -> None:
        """Until there are pairs to give out, or makers of some: what is back need not wait for those."""
        await _first_of(self._parts.supervisor.wait_settled, self._parts.reserve.wait_back, READY_TIMEOUT_S)

    async def _heed(self, signals: AsyncIterator[int]) -> None:
        """The first signal begins the drain, a second ends it at once; a SIGHUP is for the settings, unless
        it says that the terminal is gone."""
        if self._terminal.hung_up_early:
            self._hang_up()
        async for number in signals:
            if number == signal.SIGHUP:
                self._hang_up()
            else:
                self._stop()

    def _hang_up(self) -> None:
        if self._terminal.is_gone:
            self._stop()
        elif self._told_to_stop.is_set():
            log.info("the daemon stops: its settings are not read again")
        else:
            self._terminal.look_again()
            self._parts.reloader.ask()

    def _terminal_gone(self) -> None:
        if not self._told_to_stop.is_set():  # else that is why the stop is under way
            self._stop()

    def _stop(self) -> None:
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
        parts = self._parts
        async with trio.open_nursery() as accepting:
            (clients, _), (administrators, _) = self._listeners
            accepting.start_soon(parts.server.serve, clients, connections)
            accepting.start_soon(parts.server.serve, administrators, connections, parts.administrator)
            accepting.start_soon(self._show_first_fill)
            parts.readiness.is_serving = True
            # What the start made lives on: keep the collector from walking through it ever again.
            gc.collect()
            gc.freeze()
            daemon = self._config.daemon
            status = parts.status.status()
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
        while not self._parts.status.is_full:
            self._reporter.progress(self._parts.status.status())
            await trio.sleep(PROGRESS_INTERVAL_S)
        self._reporter.full(self._parts.status.status())

    async def _drain(self) -> None:
        """Let answers under way finish, within a deadline."""
        self._reporter.stopping()
        self._parts.gate.draining = True
        timeout_s = self._parts.limits.wait_timeout_s + DRAIN_MARGIN_S
        await _first_of(self._parts.server.wait_no_answers_owed, self._told_to_hurry.wait, timeout_s)
        self._parts.floor.stop("drain")


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


def _socket_paths(config: Config) -> list[tuple[Path, int, str, str]]:
    """The client socket, and beside it the one for administration: path, mode, group, and that one's key."""
    daemon, path = config.daemon, config.daemon.socket
    return [
        (path, daemon.socket_mode, daemon.socket_group, "daemon.socket_group"),
        (
            path.with_name("admin.sock"),
            daemon.admin_socket_mode,
            daemon.admin_socket_group,
            "daemon.admin_socket_group",
        ),
    ]

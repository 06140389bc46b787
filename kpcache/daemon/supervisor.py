"""Keeps the worker processes: starts shards, has makers started, restarts what dies, tells why.

One task a shard lives as long as the daemon. A maker is its shard's child, but when it may start again
is decided here, where the clock and the record of its failures are.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import trio

from kpcache import __version__
from kpcache.core import restart
from kpcache.core.text import printable
from kpcache.daemon.endings import WorkersRemainError, wait_ended, watched
from kpcache.daemon.fence import Fence
from kpcache.daemon.floor import Floor, ShardFaultError
from kpcache.daemon.notices import log
from kpcache.daemon.reports import Reports
from kpcache.daemon.reserve import Reserve
from kpcache.daemon.shard_link import ShardLink
from kpcache.daemon.stock import Stock
from kpcache.daemon.watch import watch_makers
from kpcache.daemon.worker_record import Worker
from kpcache.worker import RESTARTED, SPENT

# What is told to end, and does not, is killed after so long; its makers go with it, and all of them need a
# CPU to die on.
END_TIMEOUT_S = 2.0
KILL_TIMEOUT_S = 10.0
# A program that says nothing for so long after its start is not going to.
START_TIMEOUT_S = 30.0


class MakerSettings(NamedTuple):
    """What every maker is told: ``tag_key`` is the keyring's; for the rest see ``worker/maker.Life`` and
    ``worker/background``."""

    tag_key: bytes
    scheduling: str
    max_keys: int
    max_age_s: float


class Supervisor:
    """All workers. ``placement[i]`` is how many makers shard i has; ``reserve`` is what a shard is told of
    the reserve in a generation, None where there is none."""

    def __init__(
        self,
        placement: list[int],
        makers: MakerSettings,
        fence: Fence,
        reserve: Callable[[int], dict[str, Any] | None],
    ) -> None:
        self._maker_settings = makers
        self._fence = fence
        self._told_of_reserve = reserve
        self.shards = [Worker("shard", shard) for shard in range(len(placement))]
        self.makers = {
            (shard, maker): Worker("maker", shard, maker)
            for shard, count in enumerate(placement)
            for maker in range(count)
        }
        self._links: dict[int, ShardLink] = {}
        self._draws = 0
        self._settled = trio.Event()
        self._may_start = trio.Event()
        self._may_start.set()
        self._replaced: set[int] = set()  # shards that were killed for no fault of theirs
        self._ended = trio.Event()  # replaced at each use; set whenever a shard is gone
        self._reports: Reports
        self._stock: Stock
        self._floor: Floor
        self._reserve: Reserve
        self._nursery: trio.Nursery

    @property
    def workers(self) -> list[Worker]:
        return [*self.shards, *self.makers.values()]

    async def run(self, stock: Stock, floor: Floor, reserve: Reserve) -> None:
        """Keep all workers until cancelled; when this returns, none is left."""
        self._stock, self._floor, self._reserve = stock, floor, reserve
        self._reports = Reports(stock, floor, self.makers)
        async with trio.open_nursery() as self._nursery:
            for worker in self.shards:
                self._nursery.start_soon(self._keep_shard, worker)
            self._nursery.start_soon(watch_makers, floor, self.makers, self._replace_maker)

    async def wait_settled(self) -> None:
        """Until every maker has come up, or failed for the first time."""
        await self._settled.wait()

    def send(self, shard: int, message: list[Any]) -> None:
        """Write to a shard; void if it is gone."""
        if shard in self._links:
            self._links[shard].send(message)

    def send_draw(self, shard: int, spec: str, count: int) -> None:
        """Ask a shard for pairs."""
        self._draws += 1
        log.debug("draw %d: %d %s from shard %d", self._draws, count, spec, shard)
        self.send(shard, ["draw", self._draws, spec, count])

    def send_burn(self, shard: int, spec: str, count: int) -> None:
        """Have a shard forget its oldest pairs of a spec."""
        self.send(shard, ["burn", spec, count])

    def replace_shards(self, why: str, reason: str) -> None:
        """Kill all shards, and with them their makers and all that they hold, which is burnt for ``reason``;
        others are started."""
        for shard, link in self._links.items():
            link.give_up(why)
            self._replaced.add(shard)
            self._lose_pairs(shard, reason)

    async def end_workers(self, reason: str) -> None:
        """End all shards and makers, and start none until ``start_workers``. What they held is burnt for
        ``reason``. When this returns, no process of theirs is left.

        Raises ``WorkersRemainError``.
        """
        if self._may_start.is_set():  # else shards wait for it already
            self._may_start = trio.Event()
        with watched([maker.pid for maker in self.makers.values() if maker.pid]) as makers:
            for shard, link in self._links.items():
                link.end()
                self._lose_pairs(shard, reason)
            with trio.move_on_after(END_TIMEOUT_S):
                await self._all_ended()
            for link in self._links.values():
                link.give_up(f"did not end within {END_TIMEOUT_S:.0f} s")
            with trio.move_on_after(KILL_TIMEOUT_S) as scope:
                await self._all_ended()
                await wait_ended(makers, KILL_TIMEOUT_S)
            if scope.cancelled_caught:
                raise WorkersRemainError

    def start_workers(self) -> None:
        """After ``end_workers``."""
        self._may_start.set()

    async def _all_ended(self) -> None:
        while self._links:
            self._ended = trio.Event()
            await self._ended.wait()

    # --- shards

    async def _keep_shard(self, worker: Worker) -> None:
        while True:
            if not self._may_start.is_set():
                worker.state = "stopped"
                await self._may_start.wait()
            worker.start()
            link = ShardLink(worker.shard, lambda message: self._handle(worker, message))
            self._links[worker.shard] = link
            self._reports.begin(worker.shard)
            link.send(["init", self._init_of(worker.shard)])
            self._nursery.start_soon(self._expect_start, worker, link)
            try:
                reason = await link.run()
            except OSError as error:
                reason = f"cannot be started: {error.strerror}"
            finally:
                self._lose_shard(worker.shard)
            worker.pid = None
            if worker.shard in self._replaced:
                self._replaced.remove(worker.shard)  # by us: that is no failure of its
                worker.reason = reason
                log.warning("shard %d ended (%s); it starts again at once", worker.shard, printable(reason))
            elif self._may_start.is_set():
                await self._back_off(worker, reason)

    def _init_of(self, shard: int) -> dict[str, Any]:
        source = self._fence.source
        maker = {
            **self._maker_settings._asdict(),
            "generation": self._fence.number,
            "guard": [source.mode, source.path],
        }
        reserve = self._told_of_reserve(self._fence.number)
        return {"shard": shard, "version": __version__, "maker": maker, "reserve": reserve}

    def _lose_shard(self, shard: int) -> None:
        del self._links[shard]
        self._ended.set()
        for key, maker in self.makers.items():
            if key[0] == shard:
                maker.pid, maker.state = None, "starting" if self._may_start.is_set() else "stopped"
        self._lose_pairs(shard, "worker_lost")

    def _lose_pairs(self, shard: int, reason: str) -> None:
        self._floor.lose_shard(shard, reason)
        self._stock.lose_shard(shard, reason)
        self._reserve.lose_shard(shard)

    async def _back_off(self, worker: Worker, reason: str) -> None:
        """Wait until the worker may start again."""
        verdict = restart.decide(worker.failures, trio.current_time() - (worker.started or 0.0))
        worker.pid, worker.reason = None, printable(reason)
        worker.failures, worker.state = verdict.failures, verdict.state
        worker.deaths += 1
        name = worker.role if worker.maker is None else f"{worker.role} {worker.maker} of shard"
        again = f"in {verdict.delay_s:g} s" if verdict.delay_s else "at once"
        log.warning("%s %d ended (%s); it starts again %s", name, worker.shard, worker.reason, again)
        self._note_settled()
        await trio.sleep(verdict.delay_s)

    def _note_settled(self) -> None:
        if all(maker.state != "starting" for maker in self.makers.values()) or all(
            shard.failures for shard in self.shards
        ):
            self._settled.set()

    # --- messages

    def _handle(self, worker: Worker, message: list[Any]) -> None:
        """Act on one message of a shard. Raises ``ShardFaultError`` or what a malformed one leads to."""
        handler = self._HANDLERS.get(message[0])
        if handler is not None:
            handler(self, worker, *message[1:])
        else:
            self._reports.handle(worker.shard, message)

    def _on_ready(self, worker: Worker) -> None:
        worker.state, worker.pid = "up", self._links[worker.shard].pid
        for shard, maker in self.makers:
            if shard == worker.shard:
                self._start_maker(self.makers[shard, maker])
        self._reserve.shard_up(worker.shard)

    def _start_maker(self, maker: Worker) -> None:
        maker.start()
        self.send(maker.shard, ["start_maker", maker.maker])
        self._nursery.start_soon(self._expect_start, maker, self._links[maker.shard])

    async def _expect_start(self, worker: Worker, link: ShardLink) -> None:
        """Do not wait for ever for a worker that hangs in its start."""
        started = worker.started
        await trio.sleep(START_TIMEOUT_S)
        if (
            worker.started != started
            or worker.state != "starting"
            or self._links.get(worker.shard) is not link
        ):
            return
        why = f"said nothing for {START_TIMEOUT_S:.0f} s after its start"
        if worker.maker is None:
            link.give_up(why)
        else:
            self._replace_maker(worker, why)

    def _replace_maker(self, maker: Worker, why: str) -> None:
        """Have a maker that hangs killed by its shard, which then starts another."""
        maker.reason = why
        log.warning("maker %d of shard %d %s; it is replaced", maker.maker, maker.shard, why)
        self._start_maker(maker)

    def _on_maker(self, worker: Worker, number: int, state: str, pid: int, reason: str) -> None:
        maker = self.makers[worker.shard, number]
        if state not in ("up", "lost") or type(pid) is not int or type(reason) is not str:
            raise ShardFaultError("a maker's state is malformed")
        if state == "up":
            maker.state, maker.pid = "up", pid
            # One that follows a maker that has worked long enough is as good as that was.
            self._floor.maker_up(worker.shard, number, proved=maker.reason == SPENT and not maker.failures)
            self._note_settled()
        else:
            self._floor.maker_lost(worker.shard, number)
            if reason == RESTARTED:
                return  # its shard starts it, as it was told
            if reason == SPENT and maker.pairs:
                maker.reason, maker.failures = reason, 0
                self._start_maker(maker)
                return
            self._nursery.start_soon(self._restart_maker, maker, reason, self._links[worker.shard])

    async def _restart_maker(self, maker: Worker, reason: str, link: ShardLink) -> None:
        await self._back_off(maker, reason)
        if self._links.get(maker.shard) is link:  # else its shard has died as well and restarts it
            self._start_maker(maker)

    def _on_restored(self, worker: Worker, name: str, rows: list[Any] | None) -> None:
        self._reserve.opened(worker.shard, name, rows)

    _HANDLERS: ClassVar[dict[str, Callable[..., None]]] = {
        "ready": _on_ready,
        "maker": _on_maker,
        "restored": _on_restored,
    }

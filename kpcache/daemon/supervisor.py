"""Keeps the worker processes: starts shards, has makers started, restarts what dies, tells why.

One task a shard lives as long as the daemon. A maker is its shard's child, but when it may start again
is decided here, where the clock and the record of its failures are.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import trio

from kpcache import __version__
from kpcache.core import restart
from kpcache.core.pair import Pair
from kpcache.core.text import printable
from kpcache.daemon.floor import Floor, ShardFaultError
from kpcache.daemon.ledger_batch import MakerStart
from kpcache.daemon.notices import log
from kpcache.daemon.shard_link import ShardLink
from kpcache.daemon.stock import Stock
from kpcache.daemon.watch import watch_makers
from kpcache.daemon.worker_record import Worker
from kpcache.worker import RESTARTED

# A program that says nothing for so long after its start is not going to.
START_TIMEOUT_S = 30.0


class Supervisor:
    """All workers. ``placement[i]`` is how many makers shard i has; ``tag_key`` is the keyring's."""

    def __init__(self, placement: list[int], scheduling: str, generation: int, tag_key: bytes) -> None:
        self._init = {
            "version": __version__,
            "scheduling": scheduling,
            "generation": generation,
            "tag_key": tag_key,
        }
        self.shards = [Worker("shard", shard) for shard in range(len(placement))]
        self.makers = {
            (shard, maker): Worker("maker", shard, maker)
            for shard, count in enumerate(placement)
            for maker in range(count)
        }
        self._links: dict[int, ShardLink] = {}
        self._sequence: dict[int, int] = {}
        self._draws = 0
        self._settled = trio.Event()
        self._stock: Stock
        self._floor: Floor
        self._nursery: trio.Nursery

    @property
    def workers(self) -> list[Worker]:
        return [*self.shards, *self.makers.values()]

    async def run(self, stock: Stock, floor: Floor) -> None:
        """Keep all workers until cancelled; when this returns, none is left."""
        self._stock, self._floor = stock, floor
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
        self.send(shard, ["draw", self._draws, spec, count])

    def send_burn(self, shard: int, spec: str, count: int) -> None:
        """Have a shard forget its oldest pairs of a spec."""
        self.send(shard, ["burn", spec, count])

    def replace_shards(self, why: str) -> None:
        """End all shards, and with them their makers and all that they hold; others are started."""
        for link in self._links.values():
            link.give_up(why)

    # --- shards

    async def _keep_shard(self, worker: Worker) -> None:
        while True:
            worker.start()
            link = ShardLink(worker.shard, lambda message: self._handle(worker, message))
            self._links[worker.shard] = link
            self._sequence[worker.shard] = 0
            link.send(["init", {"shard": worker.shard, **self._init}])
            self._nursery.start_soon(self._expect_start, worker, link)
            try:
                reason = await link.run()
            except OSError as error:
                reason = f"cannot be started: {error.strerror}"
            finally:
                self._lose_shard(worker.shard)
            await self._back_off(worker, reason)

    def _lose_shard(self, shard: int) -> None:
        del self._links[shard]
        for key, maker in self.makers.items():
            if key[0] == shard:
                maker.pid, maker.state = None, "starting"
        self._floor.lose_shard(shard)
        self._stock.lose_shard(shard)

    async def _back_off(self, worker: Worker, reason: str) -> None:
        """Wait until the worker may start again."""
        verdict = restart.decide(worker.failures, trio.current_time() - (worker.started or 0.0))
        worker.pid, worker.reason = None, printable(reason)
        worker.failures, worker.state = verdict.failures, verdict.state
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
        if handler is None:
            raise ShardFaultError("an unknown message")
        handler(self, worker, *message[1:])

    def _on_ready(self, worker: Worker) -> None:
        worker.state, worker.pid = "up", self._links[worker.shard].pid
        for shard, maker in self.makers:
            if shard == worker.shard:
                self._start_maker(self.makers[shard, maker])

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
            self._floor.maker_up(worker.shard, number)
            self._note_settled()
        else:
            self._floor.maker_lost(worker.shard, number)
            if reason == RESTARTED:
                return  # its shard starts it, as it was told
            self._nursery.start_soon(self._restart_maker, maker, reason, self._links[worker.shard])

    async def _restart_maker(self, maker: Worker, reason: str, link: ShardLink) -> None:
        await self._back_off(maker, reason)
        if self._links.get(maker.shard) is link:  # else its shard has died as well and restarts it
            self._start_maker(maker)

    def _on_made(
        self, worker: Worker, maker: int, order: int, spec: str, pairs: list[Any], keygen_s: float
    ) -> None:
        by = MakerStart(worker.shard, maker, self.makers[worker.shard, maker].restarts)
        self._floor.made(by, order, spec, pairs, keygen_s)
        self.makers[worker.shard, maker].pairs += len(pairs)

    def _on_unsound(self, worker: Worker, maker: int, order: int, spec: str, count: int, reason: str) -> None:
        if type(reason) is not str:
            raise ShardFaultError("a reason is not a text")
        self._floor.unsound(worker.shard, maker, order, spec, count, printable(reason))

    def _on_done(self, worker: Worker, maker: int, order: int) -> None:
        self._floor.done(worker.shard, maker, order)

    def _on_batch(self, worker: Worker, _draw: int, sequence: int, spec: str, batch: list[Any]) -> None:
        """Pairs drawn. A shard's batches are numbered so that none can ever be taken in twice."""
        if sequence <= self._sequence[worker.shard]:
            raise ShardFaultError("a batch came twice")
        self._sequence[worker.shard] = sequence
        pairs = [_pair(spec, *row) for row in batch]
        if len(pairs) != self._stock.pools[spec].drawing.get(worker.shard):
            raise ShardFaultError("a batch is not of the size that was drawn")
        damaged = self._stock.receive(worker.shard, spec, pairs)
        if damaged:
            log.error(
                "%d %s pairs of shard %d were damaged on the way and burnt", damaged, spec, worker.shard
            )

    _HANDLERS: ClassVar[dict[str, Callable[..., None]]] = {
        "ready": _on_ready,
        "maker": _on_maker,
        "made": _on_made,
        "unsound": _on_unsound,
        "done": _on_done,
        "batch": _on_batch,
    }


def _pair(spec: str, _serial: int, generation: int, private: bytes, public: bytes, digest: bytes) -> Pair:
    """A row of a batch. It is judged before any of the batch is taken in, so that the books stay right."""
    if type(generation) is not int or not 0 <= generation < 2**64:
        raise ShardFaultError("a batch holds something else than pairs")
    if not type(private) is type(public) is type(digest) is bytes:
        raise ShardFaultError("a batch holds something else than pairs")
    return Pair(spec, generation, private, public, digest)

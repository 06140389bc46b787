"""What shards report of pairs: made, found unsound, drawn. It is judged before anything is done about it."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from kpcache.core.pair import Pair
from kpcache.core.text import printable
from kpcache.daemon.floor import Floor, ShardFaultError
from kpcache.daemon.ledger_batch import MakerStart
from kpcache.daemon.notices import log
from kpcache.daemon.stock import Stock
from kpcache.daemon.worker_record import Worker


class Reports:
    """All shards' reports."""

    def __init__(self, stock: Stock, floor: Floor, makers: Mapping[tuple[int, int], Worker]) -> None:
        self._stock = stock
        self._floor = floor
        self._makers = makers
        self._sequence: dict[int, int] = {}

    def begin(self, shard: int) -> None:
        """Another process is this shard now, and counts its batches from the first on."""
        self._sequence[shard] = 0

    def handle(self, shard: int, message: list[Any]) -> None:
        """Act on one message. Raises ``ShardFaultError`` or what a malformed one leads to."""
        handler = self._HANDLERS.get(message[0])
        if handler is None:
            raise ShardFaultError("an unknown message")
        handler(self, shard, *message[1:])

    def _made(
        self,
        shard: int,
        maker: int,
        order: int,
        spec: str,
        pairs: list[Any],
        keygen_s: float,
        took_s: list[float],
    ) -> None:
        record = self._makers[shard, maker]
        self._floor.made(MakerStart(shard, maker, record.restarts), order, spec, pairs, keygen_s, took_s)
        record.pairs += len(pairs)

    def _unsound(self, shard: int, maker: int, order: int, spec: str, count: int, reason: str) -> None:
        if type(reason) is not str:
            raise ShardFaultError("a reason is not a text")
        self._floor.unsound(shard, maker, order, spec, count, printable(reason))

    def _done(self, shard: int, maker: int, order: int) -> None:
        self._floor.done(shard, maker, order)

    def _batch(self, shard: int, _draw: int, sequence: int, spec: str, batch: list[Any]) -> None:
        """Pairs drawn. A shard's batches are numbered so that none can ever be taken in twice."""
        if sequence <= self._sequence[shard]:
            raise ShardFaultError("a batch came twice")
        self._sequence[shard] = sequence
        pairs = [_pair(spec, *row) for row in batch]
        if len(pairs) != self._stock.pools[spec].drawing.get(shard):
            raise ShardFaultError("a batch is not of the size that was drawn")
        damaged = self._stock.receive(shard, spec, pairs)
        if damaged:
            log.error("%d %s pairs of shard %d were damaged on the way and burnt", damaged, spec, shard)

    _HANDLERS: ClassVar[dict[str, Callable[..., None]]] = {
        "made": _made,
        "unsound": _unsound,
        "done": _done,
        "batch": _batch,
    }


def _pair(spec: str, _serial: int, generation: int, private: bytes, public: bytes, digest: bytes) -> Pair:
    """A row of a batch. It is judged before any of the batch is taken in, so that the books stay right."""
    if type(generation) is not int or not 0 <= generation < 2**64:
        raise ShardFaultError("a batch holds something else than pairs")
    if not type(private) is type(public) is type(digest) is bytes:
        raise ShardFaultError("a batch holds something else than pairs")
    return Pair(spec, generation, private, public, digest)

"""The failpoints: each step of a pair's life, where it is in the product, and in which process.

What is planted at a half-written message writes its first half, and then acts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.abuse.planting import PlantError, Trigger, owner_of, plant

Wrap = Callable[[Callable[..., Any], Trigger], Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class Point:
    """A step: the ``role`` whose process takes it, the function where, and how that is wrapped.

    ``each_pair``: it is taken for pairs one by one, where others are for a batch.
    """

    role: str
    target: str
    wrap: Wrap
    each_pair: bool = False

    def install(self, trigger: Trigger) -> None:
        """Raises ``PlantError``."""
        plant(self.target, lambda original: self.wrap(original, trigger))


def before(original: Callable[..., Any], trigger: Trigger) -> Callable[..., Any]:
    """Fires, then the step is taken."""

    def planted(*args: Any, **kwargs: Any) -> Any:
        trigger()
        return original(*args, **kwargs)

    return planted


def after(original: Callable[..., Any], trigger: Trigger) -> Callable[..., Any]:
    """The step is taken, then it fires."""

    def planted(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        trigger()
        return result

    return planted


def _after_verdict(original: Callable[..., Any], trigger: Trigger) -> Callable[..., Any]:
    def send(supervisor: Any, shard: int, message: list[Any]) -> None:
        original(supervisor, shard, message)
        if message[0] == "verdict":
            trigger()

    return send


class _HalfPipe:
    """A maker's pipe that can stop in the middle of what it writes."""

    def __init__(self, pipe: Any, trigger: Trigger) -> None:
        self._pipe = pipe
        self._trigger = trigger

    def sendall(self, data: bytes) -> None:
        if self._trigger.fires():
            half = len(data) // 2
            self._pipe.sendall(data[:half])
            self._trigger.act()
            data = data[half:]
        self._pipe.sendall(data)


def _half_sent(original: Callable[..., Any], trigger: Trigger) -> Callable[..., Any]:
    def init(maker: Any, *args: Any, **kwargs: Any) -> None:
        original(maker, *args, **kwargs)
        maker._pipe = _HalfPipe(maker._pipe, trigger)

    return init


def _flushed(kind: str, *, half: bool) -> Wrap:
    """A shard has written, or half written, what holds a message of this kind."""

    def wrap(original: Callable[..., Any], trigger: Trigger) -> Callable[..., Any]:
        told: set[str] = set()

        def tell(original_tell: Callable[..., Any]) -> Callable[..., Any]:
            def planted(shard: Any, *message: Any) -> None:
                told.add(message[0])
                original_tell(shard, *message)

            return planted

        plant("kpcache.worker.shard:Shard._tell", tell)

        def flush(shard: Any) -> None:
            fires = kind in told and trigger.fires()
            told.clear()
            if fires and half:
                size = len(shard._unsent) // 2
                shard._daemon.sendall(shard._unsent[:size])
                del shard._unsent[:size]
                trigger.act()
            original(shard)
            if fires and not half:
                trigger.act()

        return flush

    return wrap


def _posted(*, half: bool) -> Wrap:
    """The daemon has handed an answer with a pair to the kernel, or half of it."""

    def wrap(original: Callable[..., Any], trigger: Trigger) -> Callable[..., Any]:
        def post(outbox: Any, data: bytes, specs: Sequence[str] = (), *of: Any) -> None:
            fires = bool(specs) and outbox.is_empty and trigger.fires()
            if fires and half:
                size = len(data) // 2
                sent = outbox._sock.send(data[:size])
                trigger.act()
                data = data[sent:]
            original(outbox, data, specs, *of)
            if fires and not half:
                trigger.act()

        return post

    return wrap


POINTS: Final[dict[str, Point]] = {
    "ordered": Point("daemon", "kpcache.daemon.floor:Floor._place", before),
    "made": Point("maker", "kpcache.worker.maker:generate", after, each_pair=True),
    "checked": Point("maker", "kpcache.worker.maker:check", after, each_pair=True),
    "sending": Point("maker", "kpcache.worker.maker:Maker._make_batch", after),
    "half_sent": Point("maker", "kpcache.worker.maker:Maker.__init__", _half_sent),
    "taken_in": Point("shard", "kpcache.worker.holding:Holding.add", after, each_pair=True),
    "told_half": Point("shard", "kpcache.worker.shard:Shard._flush", _flushed("made", half=True)),
    "told": Point("shard", "kpcache.worker.shard:Shard._flush", _flushed("made", half=False)),
    "put": Point("daemon", "kpcache.daemon.ledger:Ledger.put", after),
    "committing": Point("daemon", "kpcache.daemon.ledger_file:LedgerFile.record", before),
    "committed": Point("daemon", "kpcache.daemon.ledger_file:LedgerFile.record", after),
    "verdict": Point("daemon", "kpcache.daemon.supervisor:Supervisor.send", _after_verdict),
    "held": Point("shard", "kpcache.worker.holding:Holding.record", after),
    "draw_asked": Point("daemon", "kpcache.daemon.supervisor:Supervisor.send_draw", after),
    "forgotten": Point("shard", "kpcache.worker.holding:Holding.draw", after),
    "batch_half": Point("shard", "kpcache.worker.shard:Shard._flush", _flushed("batch", half=True)),
    "batch_written": Point("shard", "kpcache.worker.shard:Shard._flush", _flushed("batch", half=False)),
    "batch_received": Point("daemon", "kpcache.daemon.stock:Stock.receive", before),
    "ready": Point("daemon", "kpcache.daemon.stock:Stock.receive", after),
    "taken": Point("daemon", "kpcache.daemon.stock:Stock._take", after),
    "built": Point("daemon", "kpcache.daemon.dispatcher:Dispatcher.build", after),
    "answer_half": Point("daemon", "kpcache.daemon.outbox:Outbox.post", _posted(half=True)),
    "answer_posted": Point("daemon", "kpcache.daemon.outbox:Outbox.post", _posted(half=False)),
    "issued": Point("daemon", "kpcache.daemon.stock:Stock.issue", after),
}


def install(fail: str, marks: str, role: str) -> None:
    """Plant the failpoint, if it is one of this role's. Raises ``PlantError``."""
    trigger = Trigger(fail, marks)
    point = POINTS.get(trigger.point)
    if point is None:
        raise PlantError(f"no failpoint {trigger.point!r}: choose from {', '.join(POINTS)}")
    if point.role == role:
        point.install(trigger)


def require_all() -> None:
    """Raises ``PlantError`` if what any failpoint is planted in is gone."""
    for point in POINTS.values():
        owner_of(point.target)

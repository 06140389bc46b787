"""Stand-ins for what a part of the daemon talks to, and how its loops are run in a test.

None of them makes real keys: the parts that they serve move bytes and never look inside.
"""

import functools
import itertools
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, cast

import msgpack
import trio
import trio.testing

from kpcache.core.buckets import Buckets, Rule
from kpcache.core.fair_queue import Identity
from kpcache.core.forecast import Forecast
from kpcache.core.limits import Limits
from kpcache.core.pair import Pair, handover_digest
from kpcache.core.pool import State
from kpcache.daemon.dispatcher import Dispatcher, Gate
from kpcache.daemon.fence import Fence
from kpcache.daemon.ledger_batch import Made
from kpcache.daemon.pools import PoolPlan
from kpcache.daemon.reserve import Reserve
from kpcache.daemon.reserve_start import Setup
from kpcache.daemon.stock import Stock
from kpcache.errors import InvalidCiphertextException, NotFoundException
from kpcache.keyring import Decrypted, Key, Keyring, Wrapped

P = ParamSpec("P")

SPEC = "ECC_NIST_P256"
WHO = Identity(1000, 1)


def mock_clock(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test under trio's mock clock: when nothing can happen now, time jumps to what is next.

    Only for tests in which everything happens in this process. One that would hang fails, as time then
    jumps to its end.
    """

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            with trio.fail_after(1_000_000):
                await test(*args, **kwargs)

        trio.run(bounded, clock=trio.testing.MockClock(autojump_threshold=0))

    return run


def real_clock(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test that waits for real processes; it fails after 20 s instead of hanging."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            with trio.fail_after(20):
                await test(*args, **kwargs)

        trio.run(bounded)

    return run


_serials = itertools.count(1)


def fake_pair(spec: str = SPEC, generation: int = 0) -> Pair:
    """A pair whose bytes are like no other's, with an honest digest."""
    private, public = b"private %d" % next(_serials), b"public %d" % next(_serials)
    return Pair(spec, generation, private, public, handover_digest(spec, generation, private, public))


def batch_rows(pairs: list[Pair]) -> list[list[Any]]:
    """Pairs as they stand in a shard's "batch" message."""
    return [[n, pair.generation, pair.private, pair.public, pair.digest] for n, pair in enumerate(pairs)]


def made_rows(spec: str, numbers: Iterator[int]) -> list[list[Any]]:
    """One new pair as it stands in a shard's "made" message."""
    tags = [b"%016d" % next(numbers) for _ in range(2 if spec.startswith("RSA") else 1)]
    return [[next(numbers), tags, b"public %d" % next(numbers)]]


def book_is_balanced(stock: Stock) -> bool:
    """The identity that an auditor checks, for every pool."""
    for pool in stock.pools.values():
        book = pool.book
        parts = book.issued + book.discarded.total() + book.held + book.ready + book.in_hand
        if book.generated + book.restored != parts or len(pool.ready) != book.ready:
            return False
        if sum(pool.held.values()) != book.held:
            return False
    return True


class FakeSource:
    """Tells a generation: the one that a test says."""

    mode = "stand-in"
    path = "/a/file"
    fd = None

    def __init__(self, generation: int = 0) -> None:
        self.generation = generation

    def read(self) -> int:
        return self.generation


class FakeShards:
    """Plays all shards to a stock: notes draws, and answers them when told."""

    def __init__(
        self,
        pools: Mapping[str, PoolPlan] | None = None,
        *,
        kept_percent: float = 0.0,
        rules: Sequence[Rule] = (),
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self.draws: list[tuple[int, str, int]] = []
        self.burns: list[tuple[int, str, int]] = []
        self.plans_asked = 0
        self.forecast: Forecast | None = None
        self.source = FakeSource()
        self.stock = Stock(
            pools or {SPEC: PoolPlan(8, 2)},
            self._send_draw,
            lambda *burn: self.burns.append(burn),
            self._needs_plan,
            lambda _spec, _ahead: self.forecast,
            Fence(self.source),
            kept_percent=kept_percent,
            buckets=Buckets(rules) if rules else None,
            clock=clock,
        )

        self.stock.fence.on_change(self._burn_copied)

    def _burn_copied(self) -> None:
        """As the daemon does when its machine was copied."""
        self.draws.clear()
        self.stock.burn_ready("copied")
        for shard in {shard for pool in self.stock.pools.values() for shard in pool.held}:
            self.stock.lose_shard(shard, "copied")

    def _send_draw(self, shard: int, spec: str, count: int) -> None:
        self.draws.append((shard, spec, count))

    def _needs_plan(self) -> None:
        self.plans_asked += 1

    def hold(self, count: int, spec: str = SPEC, shard: int = 0) -> None:
        """``count`` pairs have been made and recorded, and the shard may hold them."""
        book = self.stock.pools[spec].book
        book.make(count)
        book.move(State.MADE, State.CHECKED, count)
        book.move(State.CHECKED, State.RECORDED, count)
        self.stock.hold(shard, spec, count)

    def deliver(self, damage: Callable[[Pair], Pair] = lambda pair: pair) -> list[Pair]:
        """Answer the oldest draw; returns what was sent. ``damage`` may change pairs on the way."""
        shard, spec, count = self.draws.pop(0)
        pairs = [damage(fake_pair(spec, self.source.generation)) for _ in range(count)]
        self.stock.receive(shard, spec, pairs)
        return pairs

    def fill(self, count: int, spec: str = SPEC) -> None:
        """``count`` pairs are made, held, and as many of them made ready as the stock asks for."""
        self.hold(count, spec)
        while self.draws:
            self.deliver()


class FakeLedger:
    """Records in memory: at once or, while ``is_slow``, when told to by ``commit``."""

    def __init__(self) -> None:
        self.accepts = True
        self.unable_s = 0.0
        self.is_slow = False
        self.duplicates: list[str] = []  # specs
        self.waiting: list[Made] = []
        self._known: set[bytes] = set()

    def put(self, made: Made) -> None:
        self.waiting.append(made)
        if not self.is_slow:
            self.commit()

    def commit(self) -> None:
        waiting, self.waiting = self.waiting, []
        for made in waiting:
            twins = set()
            for index, pair in enumerate(made.pairs):
                if not self._known.isdisjoint(pair.tags) or len(set(pair.tags)) < len(pair.tags):
                    twins.add(index)
                    self.duplicates.append(made.spec)
                self._known.update(pair.tags)
            made.settle(made, frozenset(twins))


class FakeClaims:
    """The ledger as the reserve sees it: knows what it is told to know, and all claims."""

    def __init__(self) -> None:
        self.available = True
        self.floor = 1
        self.failure: Exception | None = None
        self.claimed: list[str] = []
        self.known: set[bytes] = set()

    async def claim(self, name: str) -> bool:
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        is_new = name not in self.claimed
        self.claimed.append(name)
        return is_new

    async def unknown(self, tags: Sequence[bytes]) -> set[int]:
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        return {index for index, tag in enumerate(tags) if tag not in self.known}


def no_reserve(stock: Stock) -> Reserve:
    """Of a daemon that has none."""
    setup = Setup(Path("/nowhere"), "none is wanted here")
    return Reserve(setup, int, stock, lambda _shard, _message: None, FakeClaims(), str, shards=8)


class FakeKeyring:
    """Wraps by reversing. Its keys are named by their state, and ``failure`` is raised by a wrap if set."""

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self.wrapped: list[bytes] = []

    def resolve(self, key_id: str) -> Key:
        state = {"alias/on": "Enabled", "alias/off": "Disabled", "alias/dying": "PendingDeletion"}.get(key_id)
        if state is None:
            raise NotFoundException(f"Invalid keyId '{key_id}'")
        return Key(key_id, f"arn:{key_id}", state)

    def encrypt(self, key: Key, plaintext: bytes, context: Mapping[str, str]) -> Wrapped:
        if self.failure is not None:
            raise self.failure
        self.wrapped.append(plaintext)
        return Wrapped(msgpack.packb([key.key_id, plaintext[::-1], dict(context)]), "cd" * 32)

    def decrypt(self, blob: bytes, context: Mapping[str, str]) -> Decrypted:
        try:
            key_id, plaintext, bound = msgpack.unpackb(blob)
        except (ValueError, msgpack.UnpackException):
            raise InvalidCiphertextException from None
        if bound != context:
            raise InvalidCiphertextException
        return Decrypted(self.resolve(key_id), plaintext[::-1], "ab" * 32)

    def describe(self, key: Key) -> dict[str, Any]:
        return {"KeyId": key.key_id, "Arn": key.arn, "KeyState": key.state}


class Bench:
    """A dispatcher with a fake keyring over a stock with fake shards."""

    def __init__(self, pools: Mapping[str, PoolPlan] | None = None, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.shards = FakeShards(pools or {SPEC: PoolPlan(64, 2)})
        self.stock = self.shards.stock
        self.keyring = FakeKeyring()
        self.gate = Gate()
        self.dispatcher = Dispatcher(
            self.stock, cast(Keyring, self.keyring), self.limits, self.gate, lambda: {"status": "here"}
        )


def pack_request(msgid: int, method: str = "GenerateDataKeyPair", *params: object) -> bytes:
    """A request; without ``params`` one for a pair of ``SPEC``."""
    if method == "GenerateDataKeyPair" and not params:
        params = ({"KeyId": "alias/on", "KeyPairSpec": SPEC},)
    return msgpack.packb([0, msgid, method, list(params)])  # type: ignore[no-any-return]


class Peer:
    """A client's end of a stream, for trio tests."""

    def __init__(self, sock: socket.socket) -> None:
        self.stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._unpacker = msgpack.Unpacker(strict_map_key=False)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self) -> list[Any]:
        """The next response; raises ``EOFError`` when there is none any more."""
        while True:
            for message in self._unpacker:
                if message is not None:
                    return message  # type: ignore[no-any-return]
            data = await self.stream.receive_some(65536)
            if not data:
                raise EOFError
            self._unpacker.feed(data)

    async def is_cut(self) -> bool:
        """Wait for the end of the stream; False if an answer comes instead."""
        try:
            await self.answer()
        except (EOFError, trio.BrokenResourceError):
            return True
        return False

    async def call(self, msgid: int, method: str, *params: object) -> list[Any]:
        await self.send(pack_request(msgid, method, *params))
        return await self.answer()


@contextmanager
def stream_pair(*, clogged: bool = False) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets: the server's, non-blocking, and the client's.

    ``clogged``: the server's takes not one more byte until the client reads, and then few; what clogs it is
    nil after nil, which ``Peer.answer`` skips.
    """
    server, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with server, client:
        server.setblocking(False)
        if clogged:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel makes it its least: 4608
            with suppress(BlockingIOError):
                while True:
                    server.send(b"\xc0" * 256)
        yield server, client

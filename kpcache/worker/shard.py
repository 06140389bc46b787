"""A shard: holds its part of every pool, answers draws at once, starts and ends the makers that fill it.

Its stdin is a socket pair to the daemon; when that ends, so do its makers, and it seals what it holds and
ends itself. It ignores SIGTERM and SIGINT, which reach it when someone stops the whole group: the daemon
decides when it stops. One thread, one loop; nothing in it waits for a maker.

What is said over the pipe: ``worker/__init__``.
"""

import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

from kpcache import __version__
from kpcache.core.histogram import are_durations
from kpcache.core.pipe import FrameReader, PipeError, encode
from kpcache.core.segment import SegmentError
from kpcache.worker import RESTARTED, SPENT, process
from kpcache.worker.crew import Maker, Order
from kpcache.worker.holding import Holding, HoldingError, is_pair, row_of
from kpcache.worker.reserve_folder import UnfitFolderError

if TYPE_CHECKING:
    from kpcache.worker.sealing import Sealer

_RECEIVE_BYTES: Final = 65536
# How long a stopping shard waits for its killed makers, so that none is left behind; they take
# milliseconds, but a kill may have to wait its turn on a busy machine (process.kill).
_REAP_TIMEOUT_S: Final = 0.8
EXIT_DEFECT: Final = 4


class DaemonGoneError(Exception):
    """The pipe to the daemon has ended."""


class EndedError(Exception):
    """The daemon has told this shard to forget all that it holds, and end."""


class DefectError(Exception):
    """The daemon said something that it never should; nothing it says can be trusted."""


class Shard:
    """The loop of one shard process."""

    def __init__(self, daemon: socket.socket) -> None:
        self._daemon = daemon
        self._reader = FrameReader()
        self._selector = selectors.DefaultSelector()
        self._holding = Holding()
        self._makers: dict[int, Maker] = {}
        self._maker_init: list[Any] = []  # empty until the daemon's init has come
        self._restart: set[int] = set()
        self._sealer: Sealer | None = None
        self._unsent = bytearray()
        self._watch(daemon.fileno(), self._read_daemon)

    def run(self) -> NoReturn:
        """Serve until the daemon is gone. Raises ``DaemonGoneError``, ``EndedError`` or, for a defect,
        ``DefectError``."""
        while True:
            # The daemon's descriptor is 0 and sorts first: a draw does not wait for what makers sent.
            for key, _ in sorted(self._selector.select(), key=lambda event: event[0].fd):
                # An earlier call of this round may have closed it, and even opened another by its number.
                if self._selector.get_map().get(key.fd) is key:
                    key.data()
                    self._flush()

    def seal(self) -> None:
        """The daemon is gone: have what is held wait for the next one, if there is a place for it."""
        for maker in self._makers.values():
            maker.end()  # at once: they use the CPU
        if self._sealer is not None:
            self._sealer.seal(self._holding)

    def stop(self) -> None:
        """End all makers and reap them. The shard is of no more use."""
        self._selector.close()
        with selectors.DefaultSelector() as ended:
            for maker in self._makers.values():
                maker.end()
                ended.register(maker.pidfd, selectors.EVENT_READ, maker)
            while ended.get_map() and (events := ended.select(_REAP_TIMEOUT_S)):
                for key, _ in events:
                    ended.unregister(key.fd)
                    key.data.reap()

    def _watch(self, fd: int, callback: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def _tell(self, *message: Any) -> None:
        """Say something to the daemon; it goes out when what is being handled has been."""
        self._unsent += encode(list(message))

    def _flush(self) -> None:
        """One write for all that an event led to: each write wakes the daemon, which costs it more than
        the message."""
        if self._unsent:
            unsent, self._unsent = self._unsent, bytearray()
            try:
                self._daemon.sendall(unsent)
            except ConnectionError as error:
                self._heed_last_words()
                raise DaemonGoneError from error

    # The daemon's side

    def _heed_last_words(self) -> None:
        """Its end of the pipe is closed; what it said before that lies here, and may forbid to seal some
        pairs, or all. A draw is void: nobody would have the pairs."""
        with suppress(OSError):
            while data := self._daemon.recv(_RECEIVE_BYTES):
                for message in self._reader.feed(data):
                    if message[0] in ("verdict", "burn", "end"):
                        self._obey(message)

    def _read_daemon(self) -> None:
        try:
            data = self._daemon.recv(_RECEIVE_BYTES)
        except ConnectionError as error:
            raise DaemonGoneError from error
        if not data:
            raise DaemonGoneError
        for message in self._reader.feed(data):
            if not self._maker_init:
                self._init(message)
            else:
                self._obey(message)

    def _init(self, message: list[Any]) -> None:
        match message:
            case [
                "init",
                {"version": version, "maker": dict(maker), "shard": int(shard), "reserve": reserve},
            ]:
                if version != __version__:
                    raise process.StartError(
                        f"kpcache {__version__} was installed under a running daemon of another version: "
                        "restart the daemon"
                    )
                self._maker_init = ["init", maker]
                self._tell("ready")
                self._flush()
                if reserve is not None:
                    self._prepare_to_seal(reserve, shard)
            case _:
                raise DefectError("the first message is no init")

    def _prepare_to_seal(self, reserve: dict[str, Any], shard: int) -> None:
        from kpcache.worker.sealing import sealer  # and with it cryptography: see there

        try:
            self._sealer = sealer(reserve, shard)
        except UnfitFolderError as error:
            print(f"what it holds will not wait out a restart: {error}", file=sys.stderr, flush=True)

    def _obey(self, message: list[Any]) -> None:
        match message:
            case ["draw", int(draw), str(spec), int(count)]:
                # Forgotten by the shard when this returns, and only then written.
                sequence, batch = self._holding.draw(spec, count)
                self._tell("batch", draw, sequence, spec, [pair[:5] for pair in batch])
            case ["burn", str(spec), int(count)]:
                self._holding.burn(spec, count)
            case ["verdict", list(recorded), list(refused)]:
                self._holding.record(recorded)
                self._holding.refuse(refused)
            case ["make", int(number), int(order), str(spec), int(count)]:
                maker = self._makers.get(number)
                if maker is not None:  # else it has ended, and the daemon has been or will be told
                    maker.give(Order(order, spec, count))
            case ["start_maker", int(number)]:
                self._start_maker(number)
            case ["restore", str(name), bytes(key), bytes(data)]:
                self._tell("restored", name, self._restore(data, key))
            case ["end"]:
                raise EndedError
            case _:
                raise DefectError("a message that a shard does not know")

    def _restore(self, data: bytes, key: bytes) -> list[list[Any]] | None:
        """Take in the pairs of a segment, not to be drawn before the verdict; None if it is damaged."""
        from kpcache.worker.sealing import open_segment

        try:
            rows = open_segment(data, key)
        except SegmentError:
            return None
        now = _since_boot_s()
        return [[self._holding.add(row), row.spec, row.tags, max(now - row.made_s, 0.0)] for row in rows]

    # The makers' side

    def _start_maker(self, number: int) -> None:
        if number in self._makers:  # one that still runs goes first
            self._restart.add(number)
            self._makers[number].end(RESTARTED)
            return
        try:
            maker = Maker(number, self._maker_init)
        except OSError as error:
            self._tell("maker", number, "lost", 0, f"cannot be started: {error.strerror}")
            return
        self._makers[number] = maker
        self._watch(maker.pipe.fileno(), lambda: self._read_maker(maker))
        self._watch(maker.stderr, lambda: self._read_stderr(maker))
        self._watch(maker.pidfd, lambda: self._bury(maker))

    def _read_maker(self, maker: Maker) -> None:
        for message in maker.receive() or ():
            self._relay(maker, message)
        if maker.ending:
            self._selector.unregister(maker.pipe.fileno())

    def _relay(self, maker: Maker, message: list[Any]) -> None:
        """Pass on what a maker says, if it makes sense; a maker that talks nonsense is ended."""
        if maker.ending:
            return
        match message:
            case ["made", order, str(spec), list(pairs), float(keygen_s), took_s] if all(
                map(is_pair, pairs)
            ) and are_durations(took_s, len(pairs)):
                if maker.account(order, spec, len(pairs)):
                    now = _since_boot_s()
                    kept = [[self._holding.add(row_of(spec, pair, now)), pair[4], pair[2]] for pair in pairs]
                    self._tell("made", maker.number, order, spec, kept, keygen_s, took_s)
            case ["unsound", order, str(spec), int(count), str(reason)]:
                if maker.account(order, spec, count):
                    self._tell("unsound", maker.number, order, spec, count, reason)
            case ["done", int(order)] if maker.finish(order):
                self._tell("done", maker.number, order)
            case ["spent"]:
                maker.end(SPENT)
            case ["ready"]:
                self._tell("maker", maker.number, "up", maker.pid, "")
            case _:
                maker.end("said something that a shard does not know")

    def _read_stderr(self, maker: Maker) -> None:
        if not maker.read_stderr():
            self._selector.unregister(maker.stderr)

    def _bury(self, maker: Maker) -> None:
        """It has ended: take what it still sent, then forget it."""
        while (messages := maker.receive()) is not None:
            for message in messages:
                self._relay(maker, message)
        for fd in (maker.pipe.fileno(), maker.stderr, maker.pidfd):
            if fd in self._selector.get_map():
                self._selector.unregister(fd)
        del self._makers[maker.number]
        self._tell("maker", maker.number, "lost", maker.pid, maker.reap())
        if maker.number in self._restart:
            self._restart.remove(maker.number)
            self._start_maker(maker.number)


def _since_boot_s() -> float:
    """The clock that one boot's processes share, and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def main() -> int:
    """Exit status: 0 when the daemon is gone or has said so, 3 it cannot run here, 4 a defect; the reason is
    on stderr."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir("/")  # its makers start there
    shard: Shard | None = None
    try:
        process.protect("kpcache-shard")
        shard = Shard(socket.socket(fileno=0))
        shard.run()
    except EndedError:
        return 0
    except DaemonGoneError:
        return _sealed(shard)
    except process.StartError as error:
        print(error, file=sys.stderr)
        return process.EXIT_CANNOT_START
    except (DefectError, HoldingError, PipeError) as error:
        print(error, file=sys.stderr)
        return EXIT_DEFECT
    finally:
        if shard is not None:
            shard.stop()


def _sealed(shard: Shard | None) -> int:
    try:
        if shard is not None:
            shard.seal()
    except OSError as error:
        with suppress(OSError):  # a daemon that was killed reads no more
            print(f"not all that it held could be sealed: {error.strerror}", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A case: what one connection sends. It is known by its seed and number, whoever makes it.

Grammar first: most messages are requests that a daemon might get, some with a member spoilt, so that the
dispatcher sees many. Then damage to the bytes. Behind a broken message others stand all the same: they must
never run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import msgpack

from bench.fuzz.packing import Pairs, pack
from bench.fuzz.seeds import SEEDS
from bench.fuzz.words import METHODS, ODD, ODD_METHODS, OPTIONS, UNSPEAKABLE, Words
from kpcache.core.limits import Limits

_MOST_MESSAGES = 8
_METHODS = tuple(METHODS)
_METHOD_WEIGHTS = (5, 2, 4, 4, 3, 2, 2, 1)
_DRAWN = tuple(m for m, weight in zip(_METHODS, _METHOD_WEIGHTS, strict=True) for _ in range(weight))
_MSGIDS = (0, 1, 127, 128, 2**16, 2**32 - 1, 2**32, -1, 2**64 - 1, True, None, "1", 1.0, [1], {"a": 1})
# The product's own limits, the least that a configuration takes, and ones so tight that they are always met.
_LIMITS = (
    Limits(),
    Limits(),
    Limits(max_message_bytes=16_384),
    Limits(max_message_bytes=256, max_in_flight_per_connection=2),
)
_BYTES = (0x00, 0x7F, 0x80, 0x81, 0x8F, 0x90, 0x94, 0xA0, 0xBF, 0xC0, 0xC1, 0xC4, 0xC6, 0xC7, 0xD4, 0xD9,
          0xDB, 0xDC, 0xDD, 0xDE, 0xDF, 0xE0, 0xFF)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """``pieces`` are the bytes as they arrive; ``answered_late``: no answer before all is read, or no more
    can be.

    ``draining`` and ``alarm``: the state of a daemon that gets this.
    """

    messages: int
    pieces: list[bytes]
    limits: Limits
    answered_late: bool
    draining: bool
    alarm: bool

    @property
    def stream(self) -> bytes:
        return b"".join(self.pieces)


class Maker:
    """Makes the cases of one seed."""

    def __init__(self, seed: int, words: Words) -> None:
        self._seed = seed
        self._words = words
        self._rng = Random()
        self._damages: tuple[Callable[[bytearray], object], ...] = (
            self._flip, self._flip, self._overwrite, self._delete, self._insert, self._repeat, self._splice,
            self._truncate,
        )  # fmt: skip

    def case(self, number: int) -> Case:
        """The case of this number."""
        rng = self._rng
        rng.seed(self._seed << 40 | number)
        count = 1 + int(rng.random() * _MOST_MESSAGES)
        messages = [self._message(at) for at in range(count)]
        limits = self._one(_LIMITS)
        if rng.random() < 0.15:
            # Some message is as long as is allowed, or a byte too long, or too short by one.
            limits = Limits(max_message_bytes=max(len(self._one(messages)) + self._one((-1, 0, 0, 1)), 8))
        luck = rng.random()
        stream = b"".join(messages)
        return Case(count, self._cut(stream), limits, luck < 0.2, 0.2 < luck < 0.21, 0.21 < luck < 0.23)

    def _cut(self, stream: bytes) -> list[bytes]:
        rng, luck = self._rng, self._rng.random()
        if luck < 0.6 or len(stream) < 2:
            return [stream]
        if luck < 0.62 and len(stream) < 500:
            return [stream[at : at + 1] for at in range(len(stream))]
        cuts = sorted(int(rng.random() * len(stream)) for _ in range(1 + int(rng.random() * 5)))
        return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    # --- grammar

    def _message(self, at: int) -> bytes:
        luck = self._rng.random()
        if luck < 0.06:
            packed = self._one(SEEDS)
        elif luck < 0.09:
            packed = msgpack.packb([2, self._one(_METHODS), [{}]])
        else:
            packed = self._request(at)
        return self._damaged(packed) if self._rng.random() < 0.08 else packed

    def _request(self, at: int) -> bytes:
        rng = self._rng
        method: Any = self._one(_DRAWN)
        data: Any = self._input(method)
        params: list[Any] = [data]
        luck = rng.random()
        if luck < 0.12:
            params = [data, self._one(OPTIONS)]
        elif luck < 0.13:
            params = [[], [data, None, {}], [self._one(ODD)]][int(rng.random() * 3)]
        # Now and then the msgid of the message before, which may be in flight still.
        msgid: Any = at if luck < 0.94 else at - 1 if luck < 0.97 and at else self._one(_MSGIDS)
        message: list[Any] = [0, msgid, method, params]
        if 0.13 < luck < 0.15:
            message[2] = self._one(ODD_METHODS)
        elif 0.15 < luck < 0.16:
            message[int(rng.random() * 4)] = self._one(ODD)
        elif 0.16 < luck < 0.18:
            return self._unspeakable(message)
        return pack(message, rng) if luck > 0.9 else self._packed(message)

    def _packed(self, message: list[Any]) -> bytes:
        packed: bytes = msgpack.packb(message)
        return packed

    def _input(self, method: str) -> dict[str, Any]:
        rng, words = self._rng, self._words
        required, optional = METHODS[method]
        data = {member: self._one(words.good(member)) for member in required}
        for member in optional:
            if rng.random() < 0.15:
                data[member] = self._one(words.good(member))
        if rng.random() < 0.15:
            self._spoil(data, required + optional)
        return data

    def _spoil(self, data: dict[str, Any], members: tuple[str, ...]) -> None:
        rng, luck = self._rng, self._rng.random()
        if luck < 0.2 and data:
            del data[self._one(tuple(data))]
        elif luck < 0.4 or not members:
            data[self._one(("Unknown", "keyId", "", "\n", "x" * 300, "Recipient"))] = self._one(ODD)
        else:
            data[self._one(members)] = self._one(ODD)
        if rng.random() < 0.2:
            self._spoil(data, members)

    def _unspeakable(self, message: list[Any]) -> bytes:
        """Something that no library writes, in any place of the message."""
        rng, thing = self._rng, self._one(UNSPEAKABLE)
        data = message[3][0] if message[3] else {}
        place = int(rng.random() * 5)
        if place == 0:
            message[int(rng.random() * 4)] = thing
        elif place == 1 and isinstance(data, dict):
            message[3] = [Pairs([*data.items(), *data.items()])]
        elif place == 2 and isinstance(data, dict):
            message[3] = [{**data, "EncryptionContext": thing}]
        else:
            message[3] = [thing] if place == 3 else [data, thing]
        return pack(message, rng)

    def _one(self, choices: Any) -> Any:
        return choices[int(self._rng.random() * len(choices))]

    # --- damage

    def _damaged(self, packed: bytes) -> bytes:
        data = bytearray(packed)
        while True:
            self._one(self._damages)(data)
            if self._rng.random() < 0.7:
                return bytes(data)

    def _at(self, data: bytearray) -> int:
        return int(self._rng.random() * len(data))

    def _flip(self, data: bytearray) -> None:
        if data:
            data[self._at(data)] ^= 1 << int(self._rng.random() * 8)

    def _overwrite(self, data: bytearray) -> None:
        if data:
            data[self._at(data)] = self._one(_BYTES)

    def _delete(self, data: bytearray) -> None:
        at = self._at(data)
        del data[at : at + 1 + int(self._rng.random() * 8)]

    def _insert(self, data: bytearray) -> None:
        at = self._at(data)
        data[at:at] = self._rng.randbytes(1 + int(self._rng.random() * 8))

    def _repeat(self, data: bytearray) -> None:
        at = self._at(data)
        data[at:at] = data[at : at + 1 + int(self._rng.random() * 64)]

    def _splice(self, data: bytearray) -> None:
        """The rest becomes that of another message."""
        other = self._one(SEEDS)
        del data[self._at(data) :]
        data += other[int(self._rng.random() * len(other)) :]

    def _truncate(self, data: bytearray) -> None:
        del data[self._at(data) :]

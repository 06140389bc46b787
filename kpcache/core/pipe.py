"""Frames on the pipes between daemon, shard and maker: a 4-byte big-endian length, then one msgpack value.

Both ends are ours, so a frame that breaks a rule here is a defect or a damaged process: the reader
raises ``PipeError`` and must drop the pipe, for nothing behind such bytes can be trusted.
"""

from typing import Any

import msgpack

# The largest frame is a draw of 256 RSA_4096 pairs (3 KB each); 16 MiB leaves room and bounds a fault.
MAX_FRAME_BYTES = 16 * 1024 * 1024
_LENGTH_BYTES = 4
# Most frames fit. msgpack's own is 256 KiB, and where allocated and freed memory is overwritten
# (worker/wiping) that costs 4 µs a frame.
_BUFFER_BYTES = 8192


class PipeError(Exception):
    """The other end wrote something that is not a frame."""


def encode(message: list[Any]) -> bytes:
    """One frame. ``message`` is a list whose first item names it."""
    body: bytes = msgpack.packb(message, use_bin_type=True, buf_size=_BUFFER_BYTES)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class FrameReader:
    """Turns bytes, in pieces of any size, into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[list[Any]]:
        """The messages completed by ``data``, in order. Raises ``PipeError``."""
        buffer = self._buffer
        buffer += data
        messages: list[list[Any]] = []
        start = 0
        while len(buffer) - start >= _LENGTH_BYTES:
            end = start + _LENGTH_BYTES + int.from_bytes(buffer[start : start + _LENGTH_BYTES], "big")
            if end - start > MAX_FRAME_BYTES:
                raise PipeError("a frame claims to be larger than any frame")
            if len(buffer) < end:
                break
            messages.append(_decode(bytes(buffer[start + _LENGTH_BYTES : end])))
            start = end
        if start:
            # A new one: what is deleted at its front stays in a bytearray's memory while it is in use.
            self._buffer = buffer[start:]
        return messages


def _decode(body: bytes) -> list[Any]:
    try:
        message = msgpack.unpackb(body, raw=False, use_list=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise PipeError("a frame does not hold one msgpack value") from error
    if not isinstance(message, list) or not message or not isinstance(message[0], str):
        raise PipeError("a frame does not hold a named message")
    return message

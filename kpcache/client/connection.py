"""One socket to the daemon with one request in flight: the MessagePack-RPC client side, blocking.

The usual call costs two system calls: one send, one receive. Time limits therefore lie in the kernel
(``SO_RCVTIMEO``, ``SO_SNDTIMEO``): Python's own ``settimeout`` adds a poll before each of the two,
measured 1-3 µs on a round trip of 12. The price: a signal with a Python handler that interrupts the
receive starts its time anew.
"""

import os
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

import msgpack

from kpcache.client.address import why_not_trusted
from kpcache.errors import DaemonUnreachableError, ValidationException

# The largest answer is a whole keyring for an export, at most 5 MiB, with room to spare; every other one is
# far below. It bounds what a defective server can make us hold.
MAX_ANSWER_BYTES = 8 * 1024 * 1024
# The largest usual answer (RSA_4096: 2.4 kB of key, its blob, the public key) comes in one receive.
_RECEIVE_BYTES = 16 * 1024


class ConnectionLostError(Exception):
    """The daemon went away, or sent what is not an answer, before an answer was complete."""


class Connection:
    """A connected, trusted socket. After any exception but ``ValidationException`` it must be closed."""

    def __init__(self, sock: socket.socket, path: str) -> None:
        self._sock = sock
        self._path = path
        self._msgid = 0
        self._timeout_s = -1.0
        self._pack = msgpack.Packer(default=_as_msgpack).pack

    @classmethod
    def open(cls, path: str, timeout_s: float, environ: Mapping[str, str]) -> "Connection":
        """Connect and check who listens. Raises OSError, or ``DaemonUnreachableError`` for a stranger."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection = cls(sock, path)
            connection._limit(timeout_s)
            sock.connect(path)
            _refuse_stranger(sock, path, environ)
        except BaseException:
            sock.close()
            raise
        return connection

    def call(self, method: str, params: list[Any], timeout_s: float) -> tuple[Any, Any]:
        """One request and its answer: ``(error, result)`` as sent, exactly one of them not None.

        Raises ``ValidationException`` for members that msgpack cannot express (nothing was sent),
        ``ConnectionLostError``, and ``DaemonUnreachableError`` when ``timeout_s`` seconds have passed.
        """
        self._msgid = msgid = (self._msgid + 1) & 0xFFFFFFFF
        request = self._encode([0, msgid, method, params])
        if timeout_s != self._timeout_s:
            self._limit(timeout_s)
        try:
            try:
                sent = self._sock.send(request)
                if sent != len(request):
                    self._send_rest(request[sent:], timeout_s)
            except (BrokenPipeError, ConnectionResetError):
                # It closed on us, perhaps after it said why: read on, an answer may be waiting.
                pass
            answer = self._receive(timeout_s)
        except BlockingIOError as error:
            raise DaemonUnreachableError(
                f"the daemon on {self._path} did not answer within {timeout_s:g} s; see its log"
            ) from error
        except OSError as error:
            raise ConnectionLostError(os.strerror(error.errno or 0)) from error
        return _checked(answer, msgid)

    def close(self) -> None:
        """Close this process's handle. No shutdown: a parent process may still use the same socket."""
        self._sock.close()

    def _encode(self, request: list[Any]) -> bytes:
        try:
            return self._pack(request)  # type: ignore[no-any-return]
        except (TypeError, ValueError, OverflowError) as error:
            self._pack = msgpack.Packer(default=_as_msgpack).pack  # the old one may hold half a message
            raise ValidationException(f"a member has a value that cannot be sent: {error}") from error

    def _limit(self, timeout_s: float) -> None:
        # All zeros would mean no limit at all, so a limit is at least a millisecond.
        seconds, microseconds = divmod(int(max(timeout_s, 0.001) * 1e6), 1_000_000)
        limit = struct.pack("@ll", seconds, microseconds)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._timeout_s = timeout_s

    def _send_rest(self, data: bytes, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while data:
            self._limit_to(deadline)
            data = data[self._sock.send(data) :]

    def _receive(self, timeout_s: float) -> Any:
        started = time.monotonic()
        data = self._sock.recv(_RECEIVE_BYTES)
        try:
            return msgpack.unpackb(data, max_ext_len=0)
        except msgpack.ExtraData as error:
            raise ConnectionLostError("more than one answer to one request") from error
        except (ValueError, msgpack.UnpackException):
            # Incomplete, or no msgpack at all: the streaming decoder tells the two apart.
            return self._receive_rest(data, started + timeout_s)

    def _receive_rest(self, data: bytes, deadline: float) -> Any:
        unpacker = msgpack.Unpacker(max_buffer_size=MAX_ANSWER_BYTES, max_ext_len=0)
        size = 0
        while data:
            size += len(data)
            # Counted here: the decoder's own limit is on what it has not yet decoded.
            if size > MAX_ANSWER_BYTES:
                raise ConnectionLostError("the answer is larger than any answer")
            try:
                unpacker.feed(data)
                answer = unpacker.unpack()
            except msgpack.OutOfData:
                self._limit_to(deadline)
                data = self._sock.recv(_RECEIVE_BYTES)
            except (ValueError, msgpack.UnpackException) as error:
                raise ConnectionLostError("the answer is not msgpack") from error
            else:
                if unpacker.tell() != size:
                    raise ConnectionLostError("more than one answer to one request")
                return answer
        raise ConnectionLostError("the daemon closed the connection")

    def _limit_to(self, deadline: float) -> None:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise BlockingIOError
        self._limit(left_s)


def _refuse_stranger(sock: socket.socket, path: str, environ: Mapping[str, str]) -> None:
    # struct ucred: pid, uid, gid. The pid is not looked at: it is 0 for a server outside our pid namespace.
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    _, uid, _ = struct.unpack("iII", credentials)
    if reason := why_not_trusted(path, uid, environ):
        raise DaemonUnreachableError(f"the server on {path} is not trusted: {reason}")


def _checked(answer: Any, msgid: int) -> tuple[Any, Any]:
    if type(answer) is list and len(answer) == 4 and answer[0] == 1 and answer[1] == msgid:
        error, result = answer[2], answer[3]
        if error is not None or type(result) is dict:
            return error, result
    raise ConnectionLostError("the answer is not an answer to the request")


def _as_msgpack(value: object) -> dict[Any, Any]:
    """boto3 takes any mapping as an encryption context; msgpack only a dict."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__}")

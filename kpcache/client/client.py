"""The blocking client."""

import os
import time
from types import TracebackType
from typing import Any, Self, Unpack, cast

from kpcache.client.connection import ConnectionLostError
from kpcache.client.members import (
    DataKeyPair,
    DataKeyPairMembers,
    DataKeyPairWithoutPlaintext,
    Decrypted,
    DecryptMembers,
    DescribeKeyMembers,
    Encrypted,
    EncryptMembers,
    Identified,
    KeyDescription,
    Pong,
    ReEncrypted,
    ReEncryptMembers,
)
from kpcache.client.pool import ConnectionPool
from kpcache.errors import DaemonUnreachableError, ThrottlingException, from_wire

# How far past its time a call may go, to save two system calls on each.
_NEARLY_S = 0.01
# Between two tries while a draining daemon still answers.
_DRAIN_PAUSE_S = 0.05


class Client:
    """Talks to the daemon of this machine; use one for the whole program, from any number of threads.

    - ``socket``: the daemon's socket; without it ``KPCACHE_SOCKET`` and the usual places are looked at,
      at the first call. ``socket_path`` says afterwards which one is in use.
    - ``timeout_s``: the most that one call may take, in seconds, beyond its ``wait_s``.
    - ``reconnect_s``: how long to look for a daemon that was there before and is gone (a restart).
    - ``max_connections``: how many calls may be under way at once; a further one waits its turn.

    Each operation takes boto3's members by keyword and returns boto3's shape. Those that give out a pair
    take ``wait_s`` too, kpcache's own: how long this call may wait when the pool is dry, in seconds, 0 for
    not at all; without it, the daemon's ``wait_timeout_s``, which is also the most.

    A connection that is found dead is replaced and the request sent once more. That is sound: an
    answer that was lost was of a pair that nobody will ever get, and the repeated request gets another.

    Errors are the classes of ``kpcache.errors``: ``CallerError``, ``BusyError`` (ask again),
    ``DependencyError``, ``InternalError``, and ``DaemonUnreachableError`` when no trusted daemon answers.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str] | None = None,
        *,
        timeout_s: float = 30.0,
        reconnect_s: float = 5.0,
        max_connections: int = 32,
    ) -> None:
        if timeout_s <= 0 or reconnect_s < 0 or max_connections < 1:
            raise ValueError("timeout_s and max_connections must be positive, reconnect_s not negative")
        self._timeout_s = timeout_s
        self._reconnect_s = reconnect_s
        self._pool = ConnectionPool(
            None if socket is None else os.fspath(socket),
            os.environ,
            max_connections=max_connections,
            reconnect_s=reconnect_s,
        )

    @property
    def socket_path(self) -> str | None:
        """The socket in use; None before the first call has met a daemon."""
        return self._pool.path

    def generate_data_key_pair(
        self, *, wait_s: float | None = None, **members: Unpack[DataKeyPairMembers]
    ) -> DataKeyPair:
        """A fresh pair: public key, private key, and the private key encrypted under ``KeyId``."""
        return cast(DataKeyPair, self._call("GenerateDataKeyPair", members, wait_s))

    def generate_data_key_pair_without_plaintext(
        self, *, wait_s: float | None = None, **members: Unpack[DataKeyPairMembers]
    ) -> DataKeyPairWithoutPlaintext:
        """As ``generate_data_key_pair``; the private key only in its encrypted form."""
        answer = self._call("GenerateDataKeyPairWithoutPlaintext", members, wait_s)
        return cast(DataKeyPairWithoutPlaintext, answer)

    def decrypt(self, **members: Unpack[DecryptMembers]) -> Decrypted:
        """The plaintext of a ``PrivateKeyCiphertextBlob``, given the encryption context it was made with."""
        return cast(Decrypted, self._call("Decrypt", members, None))

    def encrypt(self, **members: Unpack[EncryptMembers]) -> Encrypted:
        """A blob of at most 4096 bytes of plaintext, which ``decrypt`` opens given the same context."""
        return cast(Encrypted, self._call("Encrypt", members, None))

    def re_encrypt(self, **members: Unpack[ReEncryptMembers]) -> ReEncrypted:
        """What a blob holds, in a blob of another key or encryption context; it never leaves the daemon."""
        return cast(ReEncrypted, self._call("ReEncrypt", members, None))

    def describe_key(self, **members: Unpack[DescribeKeyMembers]) -> KeyDescription:
        """The key's metadata, with KMS's member names."""
        return cast(KeyDescription, self._call("DescribeKey", members, None))

    def ping(self) -> Pong:
        """The daemon's protocol version and limits."""
        return cast(Pong, self._call("kpcache.Ping", {}, None))

    def status(self) -> dict[str, Any]:
        """Pools, workers and readiness, as ``kpcache status --json`` prints them."""
        return self._call("kpcache.Status", {}, None)

    def who_am_i(self) -> Identified:
        """Who the daemon takes this process for, and what its rules of access let it do."""
        return cast(Identified, self._call("kpcache.WhoAmI", {}, None))

    def close(self) -> None:
        """Close the connections. Calls under way in other threads finish; later ones raise RuntimeError."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, members: Any, wait_s: float | None) -> dict[str, Any]:
        timeout_s, params = self._timeout_s, [members]
        if wait_s is not None:
            timeout_s, params = timeout_s + wait_s, [members, {"wait_s": wait_s}]
        deadline = time.monotonic() + timeout_s
        try:
            return self._ask(method, params, timeout_s, deadline)
        except ConnectionLostError:
            # Ours is dead, so the others are likely dead too: the retry must not meet one of them.
            self._pool.drop_idle()
        except ThrottlingException as refused:
            if refused.reason != "draining":
                raise
            return self._ask_successor(method, params, deadline, refused)
        try:
            return self._ask(method, params, timeout_s, deadline)
        except ConnectionLostError as lost:
            raise DaemonUnreachableError(
                f"the daemon on {self.socket_path} broke off twice: {lost}; see its log"
            ) from lost

    def _ask_successor(
        self, method: str, params: list[Any], deadline: float, refused: ThrottlingException
    ) -> dict[str, Any]:
        """The daemon drains and did nothing for the request: ask the next one, if one comes in time."""
        give_up = min(deadline, time.monotonic() + self._reconnect_s)
        while time.monotonic() < give_up:
            self._pool.drop_idle()
            time.sleep(_DRAIN_PAUSE_S)
            try:
                return self._ask(method, params, self._timeout_s, deadline)
            except (ConnectionLostError, DaemonUnreachableError):
                continue
            except ThrottlingException as again:
                if again.reason != "draining":
                    raise
        raise refused

    def _ask(self, method: str, params: list[Any], timeout_s: float, deadline: float) -> dict[str, Any]:
        connection = self._pool.take(deadline)
        left_s = deadline - time.monotonic()
        # Nearly all of the time is left: keep the limit that the socket already has.
        if left_s > timeout_s - _NEARLY_S:
            left_s = timeout_s
        try:
            error, result = connection.call(method, params, left_s)
        except BaseException:  # also KeyboardInterrupt: a late answer must not meet the next request
            self._pool.drop(connection)
            raise
        self._pool.give(connection)
        if error is not None:
            raise from_wire(error)
        return cast(dict[str, Any], result)

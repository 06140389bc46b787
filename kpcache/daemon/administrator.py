"""Administration: one change at a time, durable before it is in force, and told in the log.

A change waits for a disk, so it runs in a thread while the loop goes on serving. One task takes the
changes in the order in which they were asked for, which a connection's own tasks would not keep. What has
begun is carried to its end and adopted, whoever asked for it is gone or not; what has not is forgotten
with its connection.

Whether a connection may administrate is decided by the socket on which it came, never by who it is:
``daemon/server`` lets the connections of ``admin.sock`` in here, and no others.
"""

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import trio

from kpcache.core.admin_operations import ADMIN_OPERATIONS
from kpcache.core.limits import Limits
from kpcache.core.wire import Request
from kpcache.daemon.access import NOBODY, Visitor
from kpcache.daemon.admin_changes import CHANGES, Outcome, Setting
from kpcache.daemon.admin_lists import LISTS
from kpcache.daemon.alarm import Incidents
from kpcache.daemon.descriptors import take_over
from kpcache.daemon.dispatcher import PING, Dispatcher, Gate, PairOrder, draining
from kpcache.daemon.key_methods import admitted
from kpcache.daemon.keyring_watch import KeyringWatch
from kpcache.daemon.notices import log, log_defect
from kpcache.daemon.peer import named
from kpcache.daemon.quiesce import Quiescence
from kpcache.errors import (
    DependencyError,
    KeyUnavailableException,
    KMSInternalException,
    KpcacheError,
    ThrottlingException,
)
from kpcache.keyring import Keyring, document, names
from kpcache.keyring.document import Document
from kpcache.keyring.vault import Vault

# A whole keyring comes in one message; nobody can send one whom admin.sock keeps out.
MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
# Changes that wait, the one under way not counted: a few milliseconds each on a sound disk. Each may hold
# a keyring of 5 MiB.
MAX_WAITING: Final = 32
_RETRY_AFTER_S: Final = 1.0
_EXPORT: Final = "kpcache.ExportKeyring"
_DESCRIBE_ALARM: Final = "kpcache.DescribeAlarm"
# What a line of the log shows of a change with many subjects.
_MAX_SUBJECTS: Final = 5


# What is done about the alarm, the ledger, a snapshot or the settings: the answer, and what of it is for the
# log.
Act = Callable[[], Awaitable[tuple[dict[str, Any], list[str]]]]


def uptime() -> float:
    """Of this machine, in seconds, its times of suspension included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Caller:
    """The peer of a connection when it connected (SO_PEERCRED), for the log only."""

    uid: int
    pid: int

    def __str__(self) -> str:
        return named(self.uid, self.pid)


class Change:
    """A request whose answer takes a while: await ``answer``, once."""

    def __init__(self, method: str, data: dict[str, Any], caller: Caller) -> None:
        self.method = method
        self.data = data
        self.caller = caller
        self.is_wanted = True
        self._result: dict[str, Any] | KpcacheError
        self._settled = trio.Event()

    async def answer(self) -> dict[str, Any]:
        """KMS's answer, when all that it tells is durable. Raises ``KpcacheError``.

        If this is cancelled before the change has begun, it never begins.
        """
        try:
            await self._settled.wait()
        finally:
            self.is_wanted = False
        if isinstance(self._result, KpcacheError):
            raise self._result
        return self._result

    def settle(self, result: dict[str, Any] | KpcacheError) -> None:
        self._result = result
        self._settled.set()


class Administrator:
    """Answers what connections of ``admin.sock`` ask. ``run`` makes the changes and must be running."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        gate: Gate,
        vault: Vault,
        keyring: Keyring,
        default_alias: str,
        limits: Limits,
        incidents: Incidents,
        quiescence: Quiescence,
        reload: Act,
        *,
        now: Callable[[], float] = time.time,
        uptime: Callable[[], float] = uptime,
        urandom: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """``now`` in Unix seconds: the date of a deletion must outlive a restart. ``uptime`` in seconds, of a
        clock that nobody sets and that goes on while the machine is suspended."""
        self.limits = _for_administrators(limits)
        self._dispatcher = dispatcher
        self._gate = gate
        self._vault = vault
        self._keyring = keyring
        self._default_alias = default_alias
        self._now = now
        self._uptime = uptime
        self._booted = now() - uptime()  # when the machine was started, by the clock of this moment
        self._urandom = urandom
        self._describe_alarm = incidents.describe_alarm
        self._acts: dict[str, Act] = {
            "kpcache.ClearAlarm": incidents.clear_alarm,
            "kpcache.AcknowledgeLedger": incidents.acknowledge_ledger,
            "kpcache.Quiesce": quiescence.quiesce,
            "kpcache.Resume": quiescence.resume,
            "kpcache.Reload": reload,
        }
        self._watch = KeyringWatch(vault, self._adopt)
        self._put, self._take = trio.open_memory_channel[Change](MAX_WAITING)

    def go_by(self, limits: Limits) -> None:
        """Other limits from now on, for connections that are open too."""
        take_over(self.limits, _for_administrators(limits))

    @property
    def fault(self) -> str:
        """What is wrong with the keyring's file, with the cure; empty if nothing is known to be."""
        return self._watch.fault

    def begin(
        self, caller: Caller, request: Request, visitor: Visitor = NOBODY
    ) -> dict[str, Any] | PairOrder | Change:
        """As ``Dispatcher.begin``, which answers the methods of every client; a ``Change`` for a change.

        The change has its place in the queue when this returns. Raises ``KpcacheError``.
        """
        method = request.method
        if method not in ADMIN_OPERATIONS:
            work = self._dispatcher.begin(request, visitor)
            if method == PING and isinstance(work, dict):
                work["MaxMessageBytes"] = MAX_MESSAGE_BYTES
            return work
        if self._gate.draining:
            raise draining()
        data = admitted(request)
        if "KeyId" in data:  # those with other names for it do not have this error in KMS's model
            names.refuse_malformed_arn(data["KeyId"])
        if method == _DESCRIBE_ALARM:
            return self._describe_alarm()
        look = LISTS.get(method)
        if look is not None:
            return look(self._keyring.content, data)
        change = Change(method, data, caller)
        try:
            self._put.send_nowait(change)
        except trio.WouldBlock:
            raise ThrottlingException(
                f"{MAX_WAITING} changes of the keyring wait already: the disk may be slow",
                reason="overloaded",
                retry_after_s=_RETRY_AFTER_S,
            ) from None
        return change

    async def run(self) -> None:
        """Make the changes, until cancelled: then the one under way is still carried to its end. Between
        them, look after the file: at its time, however many changes there are, and after a failure."""
        self._watch.put_off()
        try:
            while True:
                change: Change | None = None
                with trio.move_on_at(self._watch.next_s):
                    change = await self._take.receive()
                if change is None or (change.is_wanted and await self._is_in_doubt(change)):
                    await self._watch.look()
        finally:
            self._watch.tell_at_end()

    async def _is_in_doubt(self, change: Change) -> bool:
        """Make the change. Whether what is known of the file may be untrue now."""
        result = await self._carry_out(change)
        change.settle(result)
        return bool(self.fault) or isinstance(result, KeyUnavailableException)

    def _adopt(self) -> None:
        if self._vault.content is not self._keyring.content:
            self._keyring.adopt(self._vault.content)

    async def _carry_out(self, change: Change) -> dict[str, Any] | KpcacheError:
        make, act = self._export if change.method == _EXPORT else self._make, self._acts.get(change.method)
        try:
            if act is not None:
                answer, subjects = await act()
            else:
                # Not abandoned when cancelled: until the thread is back nobody knows what is on disk.
                answer, subjects = await trio.to_thread.run_sync(make, change)
        except DependencyError as error:
            log.error("%s by %s failed: %s", change.method, change.caller, error.message)
            return error
        except KpcacheError as error:
            log.info("%s by %s refused: %s", change.method, change.caller, error.code)
            return error
        except Exception as error:
            log_defect(change.method, error)
            return KMSInternalException("an internal error; the daemon's log has the details")
        finally:
            # After a failure too: what could not be written may be on disk all the same.
            self._adopt()
        log.info("%s by %s: %s", change.method, change.caller, _told(subjects))
        return answer

    # --- in the thread

    def _make(self, change: Change) -> tuple[dict[str, Any], list[str]]:
        now = self._now()
        setting = Setting(now, self._urandom, self._default_alias, now - self._uptime() - self._booted)
        outcomes: list[Outcome] = []

        def step(content: Document) -> Document:
            outcomes.append(CHANGES[change.method](content, change.data, setting))
            return outcomes[-1].content

        self._vault.change(step, destroys=change.method == "kpcache.PurgeKey")
        return outcomes[-1].answer, outcomes[-1].subjects

    def _export(self, _: Change) -> tuple[dict[str, Any], list[str]]:
        """No change, but like one: it takes long, must see those asked for before, and concerns auditors."""
        content = self._vault.content
        answer = {"KeyringDocument": document.encode_export(content), "Revision": content.revision}
        return answer, [f"revision {content.revision}, {len(content.keys)} keys"]


def _for_administrators(limits: Limits) -> Limits:
    return replace(limits, max_message_bytes=MAX_MESSAGE_BYTES)


def _told(subjects: list[str]) -> str:
    more = len(subjects) - _MAX_SUBJECTS
    shown = subjects if more <= 0 else [*subjects[:_MAX_SUBJECTS], f"and {more} more"]
    return ", ".join(shown)

"""An administrator of a real keyring in a folder, whose disk can be slow or fail, for tests of it."""

import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import trio

from kpcache.core.limits import Limits
from kpcache.core.wire import Request
from kpcache.daemon.administrator import Administrator, Caller, Change
from kpcache.daemon.alarm import Incidents
from kpcache.daemon.dispatcher import Dispatcher, Gate, PairOrder
from kpcache.daemon.quiesce import Quiescence
from kpcache.errors import KeyUnavailableException, KMSInvalidStateException, KpcacheError
from kpcache.keyring import Keyring
from kpcache.keyring.document import Document
from kpcache.keyring.seal import Unlock
from kpcache.keyring.vault import Vault
from tests.fakes import FakeShards

ALIAS = "alias/kpcache"
ROOT = Caller(uid=0, pid=4242)
UNLOCK = Unlock()


class DoubtfulVault(Vault):
    """A vault whose disk takes changes only while ``disk`` is set, and then may fail."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.disk = threading.Event()
        self.disk.set()
        self.under_way = 0
        self.most_under_way = 0
        self.failure: Exception | None = None
        self.fails_after_writing = False
        self.destroying: list[bool] = []

    def change(self, fn: Callable[[Document], Document], *, destroys: bool = False) -> Document:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            assert self.disk.wait(20), "a test has held up the disk for too long"
            self.destroying.append(destroys)
            if self.failure is not None and not self.fails_after_writing:
                raise self.failure
            content = super().change(fn, destroys=destroys)
            if self.failure is not None:
                raise self.failure
            return content
        finally:
            self.under_way -= 1


@dataclass
class Administration:
    """``now`` is the keyring's time, in Unix seconds, and ``clock_set_s`` by how much it was set since the
    administrator is there; without that it goes as time does."""

    folder: Path
    now: float = 1_700_000_000.0
    clock_set_s: float = 0.0
    shards: FakeShards = field(default_factory=FakeShards)
    gate: Gate = field(default_factory=Gate)
    limits: Limits = field(default_factory=Limits)
    incidents: "FakeIncidents" = field(default_factory=lambda: FakeIncidents())

    def __post_init__(self) -> None:
        vault = DoubtfulVault.open(
            self.folder, create="if_empty", default_alias=ALIAS, unlock=UNLOCK, now=lambda: self.now
        )
        assert isinstance(vault, DoubtfulVault)
        self.vault = vault
        self.keyring = Keyring(vault.content, time.monotonic, os.urandom)
        self.dispatcher = Dispatcher(
            self.shards.stock, self.keyring, self.limits, self.gate, lambda: {"status": "here"}
        )
        self.administrator = Administrator(
            self.dispatcher, self.gate, vault, self.keyring, ALIAS, self.limits,
            cast(Incidents, self.incidents), cast(Quiescence, FakeQuiescence()), reload,
            now=lambda: self.now + self.clock_set_s, uptime=lambda: self.now - 1e9,
        )  # fmt: skip

    @property
    def key_id(self) -> str:
        """The key that the first start made."""
        return self.keyring.content.keys[0].key_id

    @property
    def arn(self) -> str:
        return self.keyring.resolve(self.key_id).arn

    def on_disk(self) -> Document:
        """What the next start would find."""
        return Vault.open(self.folder, create="never", default_alias=ALIAS, unlock=UNLOCK).content

    def begin(
        self, method: str, data: object = None, options: object = None, caller: Caller = ROOT
    ) -> dict[str, Any] | PairOrder | Change:
        """Without ``kpcache.`` before the method's name."""
        request = Request(1, f"kpcache.{method}", {} if data is None else data, options)
        return self.administrator.begin(caller, request)

    def begin_client(self, method: str, data: object) -> Any:
        """What is begun for a method of every client, asked for by an administrator."""
        return self.administrator.begin(ROOT, Request(1, method, data, None))

    async def call(
        self, method: str, data: object = None, options: object = None, caller: Caller = ROOT
    ) -> dict[str, Any]:
        """The answer to ``begin``. Raises ``KpcacheError``."""
        work = self.begin(method, data, options, caller)
        if isinstance(work, Change):
            return await work.answer()
        assert isinstance(work, dict)
        return work

    async def refusal(self, method: str, data: object = None, options: object = None) -> KpcacheError:
        try:
            answer = await self.call(method, data, options)
        except KpcacheError as error:
            return error
        raise AssertionError(f"it was answered: {answer}")


class FakeQuiescence:
    """Has nothing to end."""

    async def quiesce(self) -> tuple[dict[str, Any], list[str]]:
        return {"Burnt": 3}, ["3 pairs burnt"]

    async def resume(self) -> tuple[dict[str, Any], list[str]]:
        return {"Generation": 0, "CloneGuard": "none"}, []


async def reload() -> tuple[dict[str, Any], list[str]]:
    """A file that says what is so already."""
    return {"File": "/a/file", "Changed": [], "WaitsForRestart": []}, ["0 settings changed"]


class FakeIncidents:
    """An alarm that can be cleared once."""

    def __init__(self) -> None:
        self.stands = True

    def describe_alarm(self) -> dict[str, Any]:
        return {"Standing": self.stands}

    async def clear_alarm(self) -> tuple[dict[str, Any], list[str]]:
        if not self.stands:
            raise KMSInvalidStateException("No alarm stands.")
        self.stands = False
        return {"Cleared": 1}, ["1 duplicates"]

    async def acknowledge_ledger(self) -> tuple[dict[str, Any], list[str]]:
        raise KeyUnavailableException("ledger.db: disk I/O error")


@asynccontextmanager
async def administration(folder: Path) -> AsyncIterator[Administration]:
    """With its administrator running. The disk is free again at the end, so that no thread is left."""
    it = Administration(folder)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.administrator.run)
        try:
            yield it
        finally:
            it.vault.disk.set()
        nursery.cancel_scope.cancel()

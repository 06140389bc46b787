"""The metrics beside real workers, a real ledger and a real client: they agree with what it got, and no
counter falls when workers are killed."""

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import trio

from kpcache import Client
from kpcache.core.config import load
from kpcache.core.settings import Defaults
from kpcache.core.specs import MAKEABLE
from kpcache.daemon.aws_unlock import unlock_of
from kpcache.daemon.ledger_start import open_ledger
from kpcache.daemon.parts import Parts
from kpcache.daemon.state import close_listener, listen
from kpcache.daemon.worker_record import Worker
from kpcache.keyring.vault import Vault
from tests.fakes import real_clock
from tests.scrapes import Scrape, none_fell

SPEC = "ECC_NIST_P256"
TARGET = 64
PAIR = "GenerateDataKeyPair"


@asynccontextmanager
async def at_work(folder: Path) -> AsyncIterator[tuple[Parts, str]]:
    """The parts of a daemon in this process, with one pool; and the socket that it serves on."""
    pools = {spec: {"target": 0, "low_water": 0} for spec in MAKEABLE} | {SPEC: {"target": TARGET}}
    defaults = Defaults(str(folder / "s.sock"), str(folder / "state"), str(folder / "run"), usable_cpus=2)
    workers = {"shards": 2, "makers": 2}
    config = load({"pools": pools, "workers": workers}, defaults=defaults)
    daemon, keyring = config.daemon, config.keyring
    daemon.state_dir.mkdir(0o700)
    with ExitStack() as stack:
        unlock = unlock_of(keyring, {})
        vault = Vault.open(
            daemon.state_dir, create=keyring.create, default_alias=keyring.default_alias, unlock=unlock
        )
        opened = open_ledger(vault, daemon.state_dir, daemon.runtime_dir)
        stack.callback(opened.store.close)
        parts = Parts(config, vault, opened, None)
        listener = listen(daemon.socket, 0o600, "")
        stack.callback(close_listener, listener, daemon.socket)
        async with trio.open_nursery() as nursery:
            parts.background = nursery
            nursery.start_soon(parts.supervisor.run, parts.stock, parts.floor, parts.reserve)
            nursery.start_soon(parts.floor.run)
            nursery.start_soon(parts.ledger.run)
            nursery.start_soon(parts.server.serve, listener, nursery)
            yield parts, str(daemon.socket)
            nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what other processes do has no event
        await trio.sleep(0.005)


def ask(socket: str, count: int) -> int:
    """Take so many pairs as a client does; returns how many it got."""
    with Client(socket) as client:
        answers = [
            client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=SPEC) for _ in range(count)
        ]
        return len({answer["PublicKey"] for answer in answers})


async def kill(worker: Worker) -> None:
    """And wait for the one that takes its place."""
    killed = worker.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    await until(lambda: worker.pid not in (None, killed))


@real_clock
async def test_they_agree_with_the_client_and_no_counter_falls_when_workers_are_killed(
    tmp_path: Path,
) -> None:
    async with at_work(tmp_path) as (parts, socket):
        first = Scrape(parts.metrics)
        await until(lambda: parts.status.is_full)
        got = await trio.to_thread.run_sync(ask, socket, 50)
        before = Scrape(parts.metrics)
        assert none_fell(first, before)
        answered = before.total("request_duration_seconds_count", operation=PAIR, spec=SPEC)
        assert answered == got == before.value("pairs_issued_total", spec=SPEC) == 50
        assert before.value("wrap_duration_seconds_count", provider="keyring") == 50
        assert before.value("request_duration_seconds_sum", **hit_labels()) < 10
        agree(before)

        held = parts.stock.pools[SPEC].held
        await until(lambda: sum(held.values()) > TARGET // 2)
        most = max(held, key=held.__getitem__)  # so that some are lost
        shard, other = parts.supervisor.shards[most], parts.supervisor.shards[1 - most]
        for worker in (shard, parts.supervisor.makers[1 - most, 0]):
            await kill(worker)
        await until(lambda: parts.status.is_full)
        await trio.to_thread.run_sync(ask, socket, 10)
        after = Scrape(parts.metrics)
        assert none_fell(before, after)
        assert after.value("worker_restarts_total", role="shard") == shard.restarts + other.restarts == 1
        assert after.value("worker_deaths_total", role="shard") == 1
        assert after.value("worker_deaths_total", role="maker") == 1
        assert after.value("worker_restarts_total", role="maker") >= 2  # of each of the killed, one
        assert after.value("pairs_discarded_total", spec=SPEC, reason="worker_lost") > 0
        assert after.value("pairs_issued_total", spec=SPEC) == 60
        agree(after)


def hit_labels() -> dict[str, str]:
    return {"operation": PAIR, "spec": SPEC, "provider": "keyring", "outcome": "hit"}


def agree(scrape: Scrape) -> None:
    """What must be equal wherever it is counted."""
    assert scrape.adds_up(SPEC)
    generated = scrape.value("pairs_generated_total", spec=SPEC)
    assert scrape.value("keygen_duration_seconds_count", spec=SPEC) == generated
    assert 0 < scrape.value("keygen_duration_seconds_sum", spec=SPEC) < 20
    assert scrape.value("draw_duration_seconds_count") > 0
    assert scrape.value("ledger_commit_duration_seconds_count") > 0
    # Of a pair of this spec there is one, and what a commit has not settled yet waits.
    recorded = scrape.value("ledger_fingerprints") + scrape.value("ledger_waiting_pairs")
    assert recorded >= generated
    assert scrape.value("ledger_bytes") > 0

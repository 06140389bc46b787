"""A real shard and real makers, driven as the daemon drives them, killed and starved."""

import os
import signal
import time

import pytest

from kpcache.core.pair import Pair
from kpcache.core.pipe import encode
from kpcache.core.specs import MAKEABLE
from kpcache.worker.checks import check, tags
from tests.system.shard_driver import TAG_KEY, ShardDriver, hogs, shard

QUICK = "ECC_NIST_EDWARDS25519"


@pytest.mark.parametrize("spec", MAKEABLE)
def test_a_pair_goes_from_order_to_draw_as_it_was_checked(spec: str) -> None:
    with shard() as driver:
        driver.start_maker()
        [[serial, pair_tags, told]] = driver.make(spec, 1)
        driver.send("verdict", [serial], [])
        sequence, [[drawn, generation, private, public, digest]] = driver.draw(spec, 5)
        assert (sequence, drawn, generation) == (1, serial, 0)
        assert check(spec, private, public) == ""
        assert Pair(spec, generation, private, public, digest).is_intact()
        assert pair_tags == tags(spec, private, public, TAG_KEY)
        assert told == public


def test_only_recorded_pairs_are_drawn_and_none_twice() -> None:
    with shard() as driver:
        driver.start_maker()
        serials = [serial for serial, *_ in driver.make(QUICK, 60)]
        assert driver.draw(QUICK, 100) == (1, [])
        driver.send("verdict", serials[10:], serials[:10])
        batches = [driver.draw(QUICK, 20) for _ in range(4)]
        assert [sequence for sequence, _ in batches] == [2, 3, 4, 5]
        assert [len(pairs) for _, pairs in batches] == [20, 20, 10, 0]
        assert [pair[0] for _, pairs in batches for pair in pairs] == serials[10:]
        assert len({pair[2] for _, pairs in batches for pair in pairs}) == 50


def test_pairs_that_are_to_be_burnt_are_the_oldest_and_gone() -> None:
    with shard() as driver:
        driver.start_maker()
        serials = driver.fill(QUICK, 10)
        driver.send("burn", QUICK, 4)
        assert [pair[0] for pair in driver.draw(QUICK, 3)[1]] == serials[4:7]
        driver.send("burn", QUICK, 100)
        assert driver.draw(QUICK, 100) == (2, [])


def test_serial_numbers_are_never_used_again() -> None:
    with shard() as driver:
        driver.start_maker()
        first = driver.fill(QUICK, 5)
        driver.draw(QUICK, 5)
        assert min(driver.fill(QUICK, 5)) > max(first)


def test_draws_are_answered_while_makers_make() -> None:
    with shard() as driver:
        driver.start_maker()
        driver.fill(QUICK, 3)
        driver.send("make", 0, 2, "RSA_4096", 100)
        sequences = [driver.draw(QUICK, 1, draw)[0] for draw in range(3)]
        assert sequences == [1, 2, 3]


def test_a_killed_maker_is_reported_and_its_replacement_is_quick() -> None:
    """The killed one's pairs, already in the shard, are not lost."""
    with shard() as driver, hogs(2):
        pid = driver.start_maker()
        driver.fill(QUICK, 5)
        driver.send("make", 0, 2, "RSA_4096", 50)
        os.kill(pid, signal.SIGKILL)
        assert driver.expect("maker") == [0, "lost", pid, "signal 9"]
        started = time.monotonic()
        assert driver.start_maker() != pid
        driver.make(QUICK, 1, order=3)
        assert time.monotonic() - started < 1.0
        assert len(driver.draw(QUICK, 10)[1]) == 5


def test_one_maker_s_end_leaves_the_others_at_work() -> None:
    with shard() as driver:
        pid = driver.start_maker(0)
        driver.start_maker(1)
        os.kill(pid, signal.SIGKILL)
        assert driver.expect("maker")[:2] == [0, "lost"]
        driver.send("make", 0, 1, QUICK, 1)  # void: there is no such maker now
        assert len(driver.make(QUICK, 3, maker=1)) == 3


def test_starting_a_maker_that_runs_replaces_it() -> None:
    with shard() as driver:
        pid = driver.start_maker()
        driver.send("start_maker", 0)
        assert driver.expect("maker") == [0, "lost", pid, "restarted"]
        number, state, replacement, _ = driver.expect("maker")
        assert (number, state) == (0, "up")
        assert replacement != pid


def _rsa_4096_in_the_making(driver: ShardDriver) -> None:
    for maker in (0, 1):
        driver.start_maker(maker)
        driver.send("make", maker, 1, "RSA_4096", 50)
    time.sleep(0.2)  # into the first keys; any moment will do


@pytest.mark.parametrize("busy", [0, 2])
def test_the_end_of_its_pipe_ends_a_shard_and_its_makers_within_a_second(busy: int) -> None:
    with shard() as driver, hogs(busy):
        _rsa_4096_in_the_making(driver)
        driver.pipe.close()
        assert driver.ended_within(1.0)
        assert driver.process.returncode == 0


@pytest.mark.parametrize("busy", [0, 2])
def test_a_killed_shard_takes_its_makers_along_within_a_second(busy: int) -> None:
    with shard() as driver, hogs(busy):
        _rsa_4096_in_the_making(driver)
        driver.process.kill()
        assert driver.ended_within(1.0)


def test_a_shard_ignores_the_signals_that_stop_a_group() -> None:
    with shard() as driver:
        driver.start_maker()
        driver.fill(QUICK, 2)
        driver.process.send_signal(signal.SIGTERM)
        driver.process.send_signal(signal.SIGINT)
        assert len(driver.draw(QUICK, 2)[1]) == 2


def test_a_daemon_that_reads_nothing_and_goes_still_ends_its_shard() -> None:
    """The shard is then stuck in a write, not waiting for the pipe to end."""
    with shard() as driver:
        driver.start_maker()
        driver.fill(QUICK, 300)
        driver.pipe.settimeout(0.5)
        # Fails when no more fits in: then neither its socket nor ours is being read.
        with pytest.raises(TimeoutError):
            driver.pipe.sendall(100_000 * encode(["draw", 1, QUICK, 1]))
        driver.pipe.close()
        assert driver.ended_within(1.0)


@pytest.mark.parametrize(
    "message",
    [["nonsense"], ["draw", "x", QUICK, 1], ["verdict", [99], []], ["verdict", [], [99]]],
    ids=["unknown", "ill-typed", "recorded unknown", "refused unknown"],
)
def test_a_defect_of_the_daemon_ends_the_shard_with_a_reason(message: list[object]) -> None:
    with shard() as driver:
        driver.start_maker()
        driver.send(*message)
        assert driver.ended_within(5.0)
        assert driver.process.returncode == 4
        assert driver.process.stderr is not None
        [line] = driver.process.stderr.read().splitlines()
        assert line


def test_a_broken_frame_ends_the_shard_with_a_reason() -> None:
    with shard() as driver:
        driver.pipe.sendall(b"\xff" * 8 + encode(["draw", 1, QUICK, 1]))
        assert driver.ended_within(5.0)
        assert driver.process.returncode == 4
        assert driver.process.stderr is not None
        assert b"frame" in driver.process.stderr.read()

"""What a maker says about its work: every pair ordered is told of once, and no unsound one is sent."""

import itertools
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kpcache.core.pair import Pair
from kpcache.core.pipe import FrameReader
from kpcache.worker import generate as generate_module
from kpcache.worker import maker as maker_module
from kpcache.worker.checks import check, tags
from kpcache.worker.generate import generate
from kpcache.worker.generation import Source
from kpcache.worker.maker import Life, Maker, SpentError
from tests.fakes import FakeSource

SPEC = "ECC_NIST_P256"
TAG_KEY = b"k" * 32
GENERATION = 7


class FakePipe:
    """Keeps what was sent."""

    def __init__(self) -> None:
        self._reader = FrameReader()
        self.messages: list[list[Any]] = []

    def sendall(self, data: bytes) -> None:
        self.messages += self._reader.feed(data)


LIFE = Life(max_keys=1000, max_age_s=3600.0)


def a_maker(
    pipe: FakePipe,
    life: Life = LIFE,
    before_key: Any = lambda: None,
    source: Source | None = None,
    **more: Any,
) -> Maker:
    return Maker(cast(Any, pipe), TAG_KEY, source or FakeSource(GENERATION), life, before_key, **more)


def work(spec: str, count: int, before_key: Any = lambda: None) -> list[list[Any]]:
    pipe = FakePipe()
    a_maker(pipe, before_key=before_key).make(5, spec, count)
    return pipe.messages


def test_a_quick_spec_comes_in_batches_of_sound_closed_pairs() -> None:
    *made, done = work("ECC_NIST_P256", 40)
    assert done == ["done", 5]
    assert {tuple(message[:3]) for message in made} == {("made", 5, "ECC_NIST_P256")}
    assert sum(len(message[3]) for message in made) == 40
    assert max(len(message[3]) for message in made) <= 32
    assert all(message[4] > 0 for message in made)
    assert all(len(message[5]) == len(message[3]) for message in made)
    assert all(each_s > 0 for message in made for each_s in message[5])
    privates = set()
    for message in made:
        for generation, private, public, digest, pair_tags in message[3]:
            assert generation == GENERATION
            assert check("ECC_NIST_P256", private, public) == ""
            assert Pair("ECC_NIST_P256", generation, private, public, digest).is_intact()
            assert pair_tags == tags("ECC_NIST_P256", private, public, TAG_KEY)
            privates.add(private)
    assert len(privates) == 40


def test_each_sound_key_is_timed_by_the_clock_from_its_first_byte_to_its_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, pairs = [100.0], iter([1.0, 2.0, 4.0])
    sound = generate(SPEC)

    def taking(spec: str) -> tuple[bytes, bytes]:
        assert spec == SPEC
        took_s = next(pairs)
        now[0] += took_s
        return sound if took_s != 2.0 else (b"", b"")

    def before_key() -> None:
        now[0] += 50.0  # to mix in randomness, or to wait for one's turn: no part of the key

    clock = SimpleNamespace(perf_counter=lambda: now[0], monotonic=lambda: 0.0, process_time=lambda: 0.0)
    monkeypatch.setattr(maker_module, "time", clock)
    monkeypatch.setattr(maker_module, "generate", taking)
    unsound, made, _ = work(SPEC, 3, before_key)
    assert unsound[0] == "unsound"
    assert made[5] == [1.0, 4.0]


def test_an_rsa_pair_is_sent_when_it_is_made() -> None:
    assert [message[0] for message in work("RSA_2048", 2)] == ["made", "made", "done"]


def test_randomness_is_mixed_in_before_each_key(monkeypatch: pytest.MonkeyPatch) -> None:
    story: list[str] = []

    def recorded(spec: str) -> tuple[bytes, bytes]:
        story.append("key")
        return generate(spec)

    monkeypatch.setattr(maker_module, "generate", recorded)
    work("ECC_NIST_EDWARDS25519", 3, lambda: story.append("reseed"))
    assert story == ["reseed", "key"] * 3


def test_an_unsound_pair_is_told_of_and_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = generate("ECC_NIST_P256")
    made = iter([(private, public), (private, public[:-1] + bytes([public[-1] ^ 1])), (private, public)])
    monkeypatch.setattr(maker_module, "generate", lambda _spec: next(made))
    messages = {message[0]: message for message in work("ECC_NIST_P256", 3)}
    assert messages["unsound"][:4] == ["unsound", 5, "ECC_NIST_P256", 1]
    assert messages["unsound"][4]
    assert [pair[1:3] for pair in messages["made"][3]] == [[private, public]] * 2
    assert list(messages)[-1] == "done"


def test_an_order_of_unsound_pairs_only_ends_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maker_module, "generate", lambda _spec: (b"", b""))
    assert [message[0] for message in work("RSA_2048", 2)] == ["unsound", "unsound", "done"]


@pytest.mark.parametrize(("spec", "at"), [("ECC_NIST_P256", 1), ("ECC_NIST_P256", 20), ("RSA_2048", 2)])
def test_what_was_made_while_the_machine_was_copied_never_leaves(
    spec: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is made within key ``at``: after its first random byte."""
    pipe, source, keys = FakePipe(), FakeSource(GENERATION), itertools.count(1)

    def copied(spec: str) -> tuple[bytes, bytes]:
        pair = generate(spec)
        if next(keys) == at:
            source.generation += 1
        return pair

    monkeypatch.setattr(maker_module, "generate", copied)
    with pytest.raises(SpentError, match="copied"):
        a_maker(pipe, source=source).make(5, spec, 30)
    batch = 1 if spec == "RSA_2048" else 32
    assert sum(len(message[3]) for message in pipe.messages) == (at - 1) // batch * batch
    assert "done" not in [message[0] for message in pipe.messages]


def test_no_key_is_begun_in_a_copy() -> None:
    source, story = FakeSource(GENERATION), list[str]()
    maker = a_maker(FakePipe(), before_key=lambda: story.append("key"), source=source)
    source.generation += 1
    with pytest.raises(SpentError, match="copied"):
        maker.make(5, "RSA_2048", 1)
    assert not story


def test_it_is_spent_after_so_many_keys_at_the_end_of_an_order() -> None:
    pipe = FakePipe()
    maker = a_maker(pipe, Life(max_keys=5, max_age_s=3600.0))
    maker.make(1, "ECC_NIST_P256", 4)
    with pytest.raises(SpentError):
        maker.make(2, "ECC_NIST_P256", 4)
    assert sum(len(message[3]) for message in pipe.messages if message[0] == "made") == 8
    assert [message for message in pipe.messages if message[0] == "done"] == [["done", 1], ["done", 2]]


def test_it_is_spent_after_so_long_at_the_end_of_an_order() -> None:
    now = [100.0]
    maker = a_maker(FakePipe(), Life(max_keys=1000, max_age_s=60.0), clock=lambda: now[0])
    now[0] += 59
    maker.make(1, "ECC_NIST_P256", 1)
    now[0] += 1
    with pytest.raises(SpentError):
        maker.make(2, "ECC_NIST_P256", 1)


@pytest.mark.parametrize("spec", ["ECC_NIST_P256", "RSA_2048"])
def test_without_a_way_to_reseed_a_process_makes_one_key(spec: str) -> None:
    pipe = FakePipe()
    with pytest.raises(SpentError, match="one key"):
        a_maker(pipe, Life(1000, 3600.0, is_reseeded=False)).make(5, spec, 3)
    assert [(message[0], len(message[3])) for message in pipe.messages] == [("made", 1)]


def test_a_build_without_rand_add_is_told(monkeypatch: pytest.MonkeyPatch) -> None:

    class Lib:
        pass

    class OpenSSL:
        lib = Lib()

    import cryptography.hazmat.bindings._rust as rust

    monkeypatch.setattr(rust, "_openssl", OpenSSL())
    assert generate_module.reseeder() is None


def test_the_reseeder_feeds_fresh_bytes_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def urandom(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    monkeypatch.setattr("os.urandom", urandom)
    reseed = generate_module.reseeder()
    assert reseed is not None
    reseed()
    reseed()
    assert asked == [48, 48]


@pytest.mark.parametrize("spec", ["SM2", "ML_KEM_512", "rsa"])
def test_a_spec_that_cannot_be_made_is_an_error(spec: str) -> None:
    with pytest.raises(ValueError, match="can be made"):
        generate(spec)

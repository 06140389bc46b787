"""The abuse harness's checker: each rule finds the violation that is planted for it, and nothing in a history
without one."""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from bench.abuse import checker
from bench.abuse.checker import prove
from bench.abuse.records import ISSUED, OPENED, Answer, Books, Copy, LedgerRow, Life, Proof, books_of

SLACK = 4
DRY = "refused:ThrottlingException:pool_dry"


def digest(what: str) -> bytes:
    return hashlib.sha256(what.encode()).digest()


def row(name: str, life: int = 1, serial: int = 1, tag: str = "") -> LedgerRow:
    """The row of the pair ``name``."""
    return LedgerRow(digest(f"tag {tag or name}")[:16], digest(f"public {name}")[:8], life << 32 | serial)


@dataclass
class History:
    """Two clients over two lives. The first life was killed: of its seven pairs three were given out, two lay
    in a shard, and two were ready. The second ended in order: it gave out one, and held one."""

    answers: list[Answer] = field(default_factory=list)
    rows: list[LedgerRow] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    expected: dict[str, int] = field(default_factory=dict)
    copies: list[Copy] = field(default_factory=list)

    def give(self, client: str, name: str, time_s: float, outcome: str = ISSUED) -> None:
        number = self.expected[client] = self.expected.get(client, 0) + 1
        private, public = digest(f"private {name}"), digest(f"public {name}")
        self.answers.append(Answer(client, number, time_s, outcome, "ECC_NIST_P256", private, public))

    def refuse(self, client: str, outcome: str, time_s: float) -> None:
        number = self.expected[client] = self.expected.get(client, 0) + 1
        self.answers.append(Answer(client, number, time_s, outcome, "ECC_NIST_P256"))

    def prove(self) -> Proof:
        return prove(self.answers, self.rows, self.lives, self.expected, frozenset({DRY}), self.copies)


@pytest.fixture
def history() -> History:
    made = History()
    made.give("a", "one", 1.0)
    made.give("b", "two", 2.0, OPENED)
    made.refuse("a", DRY, 2.5)
    made.give("a", "rsa", 3.0)
    made.give("b", "second life", 21.0)
    made.rows = [row(name) for name in ("one", "two", "rsa", "held 1", "held 2", "ready 1", "ready 2")]
    made.rows.append(row("rsa", tag="the other prime"))
    made.rows += [row("second life", life=2), row("held 3", life=2)]
    killed = Books(generated=7, issued=3, held=2, ready=2)
    ended = Books(generated=2, issued=1, held=1)
    made.lives = [Life(1, 0.0, killed, SLACK), Life(2, 20.0, ended)]
    return made


def test_a_history_without_a_fault_is_proved(history: History) -> None:
    proof = history.prove()
    assert proof.violations == []
    assert (proof.issued, proof.opened, proof.refused, proof.recorded) == (4, 1, {DRY: 1}, 9)
    assert proof.unexplained == [2, 0]


@pytest.mark.parametrize("client", ["a", "b"])
def test_a_private_key_given_out_twice(history: History, client: str) -> None:
    """To the same client or another, in the same life or the next."""
    history.give(client, "one", 22.0)
    assert "twice" in history.prove().rules


@pytest.mark.parametrize("part", ["private", "public"])
def test_one_key_of_a_pair_given_out_twice(history: History, part: str) -> None:
    first = history.answers[0]
    history.give("b", "third", 3.5)
    history.answers[-1] = history.answers[-1]._replace(**{part: getattr(first, part)})
    assert "twice" in history.prove().rules


def test_a_key_that_was_never_recorded(history: History) -> None:
    history.rows = [each for each in history.rows if each.fingerprint != digest("public two")[:8]]
    assert "unknown" in history.prove().rules


@pytest.mark.parametrize(
    "outcome", ["fault:not-whole", "fault:n-is-not-p-times-q", "refused:KMSInternalException:-"]
)
def test_an_answer_that_is_not_sound(history: History, outcome: str) -> None:
    history.refuse("a", outcome, 4.0)
    assert history.prove().rules == {"unsound"}


def test_a_line_that_is_missing_in_a_log(history: History) -> None:
    del history.answers[0]
    assert "gap" in history.prove().rules


def test_a_line_that_is_in_a_log_twice(history: History) -> None:
    history.answers.append(history.answers[2])  # a refusal
    assert history.prove().rules == {"gap"}


def test_a_log_without_its_end(history: History) -> None:
    history.expected["a"] = 0
    assert history.prove().rules == {"gap"}


def test_a_client_without_a_log(history: History) -> None:
    history.expected["c"] = 3
    assert history.prove().rules == {"gap"}


@pytest.mark.parametrize("twin", [row("one", serial=2, tag="again"), row("one", life=2, tag="again")])
def test_a_pair_recorded_in_two_batches(history: History, twin: LedgerRow) -> None:
    history.rows.append(twin)
    assert "recorded twice" in history.prove().rules


def test_a_pair_with_three_tags(history: History) -> None:
    history.rows.append(row("rsa", tag="a third prime"))
    assert history.prove().rules == {"recorded twice"}


def test_a_kill_may_cost_a_ready_set_and_a_batch_and_no_pair_more(history: History) -> None:
    for number in range(SLACK - 2):
        history.rows.append(row(f"lost {number}"))
    assert history.prove().violations == []
    history.rows.append(row("lost, and one too many"))
    assert history.prove().rules == {"unexplained"}


def test_an_end_in_order_may_cost_nothing(history: History) -> None:
    history.rows.append(row("lost", life=2))
    assert history.prove().rules == {"unexplained"}


def test_more_given_out_than_was_recorded(history: History) -> None:
    books = history.lives[1].books
    assert books is not None
    history.lives[1] = replace(history.lives[1], books=books._replace(held=2))
    assert history.prove().rules == {"unexplained"}


def test_what_never_was_in_the_ledger_is_not_looked_for_there(history: History) -> None:
    """Pairs that failed their checks are in no ledger; those lost with a worker are."""
    books = history.lives[1].books
    assert books is not None
    discarded = books._replace(discarded=3, unrecorded=2)
    history.lives[1] = replace(history.lives[1], books=discarded)
    assert history.prove().rules == {"unexplained"}
    history.rows.append(row("worker lost", life=2))
    assert history.prove().violations == []


def test_pairs_that_were_restored_come_from_an_earlier_life(history: History) -> None:
    """Two that a shard sealed at the kill: one of them is given out by the next life."""
    history.give("a", "held 1", 23.0)
    assert history.prove().rules == {"unexplained"}
    books = history.lives[1].books
    assert books is not None
    history.lives[1] = replace(history.lives[1], books=books._replace(restored=2, held=2))
    assert history.prove().violations == []


def test_an_answer_that_was_read_when_its_daemon_was_dead(history: History) -> None:
    """It is of the life that recorded it, if the next one has only just begun."""
    history.give("a", "ready 1", 20.5)
    proof = history.prove()
    assert (proof.violations, proof.unexplained) == ([], [1, 0])


def test_a_life_that_never_had_the_ledger_has_recorded_nothing(history: History) -> None:
    history.lives.insert(1, Life(0, 19.0, None, SLACK))
    assert history.prove().unexplained == [2, 0, 0]


def test_a_key_of_before_a_copy_given_out_after_it(history: History) -> None:
    """Client a was refused at 2.5 s, and then asked for the key that it had at 3 s."""
    batch = row("rsa").batch
    history.copies = [Copy(2.2, batch)]
    assert history.prove().rules == {"copied"}
    history.copies = [Copy(2.2, batch - 1)]  # recorded after the copy
    assert history.prove().violations == []
    history.copies = [Copy(2.6, batch)]  # it may have been asked for by then
    assert history.prove().violations == []


def test_evidence_is_cut_and_says_how_much_there_is(history: History) -> None:
    for time_s in range(20):
        history.give("b", "one", 4.0 + time_s / 10)
    found = [each.evidence for each in history.prove().violations if each.rule == "twice"]
    assert len(found) == 8
    assert found[-1] == "and 13 more"


def test_no_evidence_has_a_private_keys_digest(history: History) -> None:
    history.give("b", "one", 4.0)
    told = " ".join(each.evidence for each in history.prove().violations)
    assert digest("public one")[:8].hex() in told
    assert digest("private one")[:8].hex() not in told


STATUS: dict[str, Any] = {
    "pools": {
        "ECC_NIST_P256": {
            "generated": 20, "restored": 3, "issued": 9, "discarded": 5, "held": 4, "ready": 3, "in_hand": 2,
        },
        "RSA_2048": {
            "generated": 2, "restored": 0, "issued": 1, "discarded": 0, "held": 1, "ready": 0, "in_hand": 0,
        },
    },
    "discarded": {"ECC_NIST_P256": {"unsound": 1, "duplicate": 2, "worker_lost": 2}},
}  # fmt: skip


def test_books_are_the_sums_over_all_pools() -> None:
    assert books_of(STATUS) == Books(22, 3, 10, 5, 5, 3, 2, unrecorded=3)


def test_a_status_that_adds_up() -> None:
    assert checker.unbalanced(STATUS) == []


@pytest.mark.parametrize(
    "place", ["generated", "restored", "issued", "discarded", "held", "ready", "in_hand"]
)
@pytest.mark.parametrize("change", [lambda count: count + 1, lambda count: count - 1])
def test_a_status_that_does_not_add_up(place: str, change: Callable[[int], int]) -> None:
    status = copy.deepcopy(STATUS)
    status["pools"]["RSA_2048"][place] = change(status["pools"]["RSA_2048"][place])
    [found] = checker.unbalanced(status)
    assert (found.rule, found.evidence.partition(":")[0]) == ("unbalanced", "RSA_2048")

"""What the clients' logs, the ledger's rows and the statuses prove together: no I/O, no clock.

What is proved, each by a rule that names its violations:

- ``gap``          no client's log lacks a line
- ``unsound``      every answer was whole and a sound pair; every refusal was one to be expected
- ``twice``        no private and no public key was given out twice, by all clients, over all restarts
- ``unknown``      every key given out is in the ledger
- ``recorded twice``  the ledger has each pair once
- ``unexplained``  what is in the ledger, and nobody got, the daemon's books account for: all of it at an
                   end in order, all but a ready set and one batch at a kill
- ``copied``       after a copy of the machine no key was given out that was recorded before it: the other
                   copy may give it out, too
- ``unbalanced``   generated + restored = issued + discarded + held + ready + in hand, in every status

Evidence names public keys by the start of their SHA-256, as the ledger does, and nothing secret.
"""

import itertools
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bench.abuse.records import OPENED, Answer, Books, Copy, LedgerRow, Life, Proof, Violation

FINGERPRINT_BYTES: Final = 8
_MAX_EVIDENCE: Final = 8
# How long after its daemon's death a client may come to read an answer, on a busy machine.
_LATE_S: Final = 2.0


def prove(
    answers: Sequence[Answer],
    rows: Sequence[LedgerRow],
    lives: Sequence[Life],
    expected: Mapping[str, int],
    tolerated: frozenset[str],
    copies: Sequence[Copy] = (),
) -> Proof:
    """``expected``: how many requests each client says it made; ``tolerated``: refusals that may come."""
    issued = [answer for answer in answers if answer.is_issued]
    proof = Proof(
        issued=len(issued),
        opened=sum(answer.outcome == OPENED for answer in issued),
        refused=Counter(answer.outcome for answer in answers if not answer.is_issued),
        recorded=len({row.fingerprint for row in rows}),
        unexplained=unexplained(lives, issued, rows),
    )
    proof.violations = [
        *gaps(answers, expected),
        *unsound(answers, tolerated),
        *twice(issued),
        *unknown(issued, rows),
        *recorded_twice(rows),
        *copied(answers, rows, copies),
        *beyond_slack(lives, proof.unexplained),
    ]
    return proof


def gaps(answers: Iterable[Answer], expected: Mapping[str, int]) -> list[Violation]:
    """Logs that do not hold the requests 1 to n of their client, each once."""
    seen: dict[str, list[int]] = {client: [] for client in expected}
    for answer in answers:
        seen.setdefault(answer.client, []).append(answer.number)
    return [
        Violation("gap", f"client {client}: {len(numbers)} lines of {expected.get(client, 0)} requests")
        for client, numbers in seen.items()
        if sorted(numbers) != list(range(1, expected.get(client, 0) + 1))
    ]


def unsound(answers: Iterable[Answer], tolerated: frozenset[str]) -> list[Violation]:
    """Answers that are no sound pair, and refusals that nothing here explains."""
    odd = Counter(a.outcome for a in answers if not a.is_issued and a.outcome not in tolerated)
    return [Violation("unsound", f"{outcome}: {count} times") for outcome, count in odd.items()]


def twice(issued: Iterable[Answer]) -> list[Violation]:
    """Keys that were given out more than once."""
    first: dict[bytes, Answer] = {}
    found: list[Violation] = []
    for answer in issued:
        earlier = next((first[key] for key in (answer.private, answer.public) if key in first), None)
        if earlier is not None:
            found.append(
                Violation("twice", f"{_shown(answer)} has the key of {_shown(earlier)}: {_name(answer)}")
            )
        for key in (answer.private, answer.public):
            first.setdefault(key, answer)
    return _cut(found)


def unknown(issued: Iterable[Answer], rows: Iterable[LedgerRow]) -> list[Violation]:
    """Keys given out that were never recorded."""
    known = {row.fingerprint for row in rows}
    return _cut(
        [
            Violation("unknown", f"{_shown(answer)} was never recorded: {_name(answer)}")
            for answer in issued
            if answer.public[:FINGERPRINT_BYTES] not in known
        ]
    )


def recorded_twice(rows: Iterable[LedgerRow]) -> list[Violation]:
    """Pairs that are in the ledger more than once: in two batches, or with more than the two tags of RSA."""
    batches: dict[bytes, set[int]] = {}
    tags: Counter[bytes] = Counter()
    for row in rows:
        batches.setdefault(row.fingerprint, set()).add(row.batch)
        tags[row.fingerprint] += 1
    return _cut(
        [
            Violation(
                "recorded twice", f"{fingerprint.hex()}: {tags[fingerprint]} tags, {len(found)} batches"
            )
            for fingerprint, found in batches.items()
            if len(found) > 1 or tags[fingerprint] > 2
        ]
    )


def copied(answers: Iterable[Answer], rows: Iterable[LedgerRow], copies: Iterable[Copy]) -> list[Violation]:
    """Keys that were asked for after a copy, and recorded before it. A client asks when it has had the answer
    before: what it had asked for earlier may have been on its way."""
    batches = {row.fingerprint: row.batch for row in rows}
    by_client: dict[str, list[Answer]] = {}
    for answer in sorted(answers, key=lambda each: (each.client, each.number)):
        by_client.setdefault(answer.client, []).append(answer)
    return _cut(
        [
            Violation("copied", f"{_shown(answer)} is of before a copy of the machine: {_name(answer)}")
            for copy in copies
            for own in by_client.values()
            for before, answer in itertools.pairwise(own)
            if answer.is_issued
            and before.time_s > copy.time_s
            and batches.get(answer.public[:FINGERPRINT_BYTES], copy.batch + 1) <= copy.batch
        ]
    )


def unexplained(lives: Sequence[Life], issued: Iterable[Answer], rows: Iterable[LedgerRow]) -> list[int]:
    """By life: pairs that it recorded or took over, that no client got, and that its last books do not have.

    What shards held at a kill its books have: it is lost with them, or sealed and restored by the next life.
    After an end in order they have what was ready and in hand, too.
    """
    recorded = Counter(life for life, _ in {(row.life, row.fingerprint) for row in rows})
    given = _given(lives, issued, {row.fingerprint: row.life for row in rows})
    counts = []
    for number, life in enumerate(lives):
        books = life.books or Books()
        accounted = books.discarded - books.unrecorded + books.held
        if not life.slack:
            accounted += books.ready + books.in_hand
        taken_over = (recorded[life.number] if life.number else 0) + books.restored
        counts.append(taken_over - given[number] - accounted)
    return counts


def _given(lives: Sequence[Life], issued: Iterable[Answer], life_of: Mapping[bytes, int]) -> Counter[int]:
    """How many pairs each of the lives gave out, by their place in the list: told by when they came.

    A client may read an answer when its daemon is dead and the next one begun: then who recorded it tells.
    """
    starts = [life.started_s for life in lives]
    given: Counter[int] = Counter()
    for answer in issued:
        place = max(bisect_right(starts, answer.time_s) - 1, 0)
        life, before = lives[place], lives[max(place - 1, 0)]
        is_late = answer.time_s - life.started_s < _LATE_S and not (life.books and life.books.restored)
        if is_late and life_of.get(answer.public[:FINGERPRINT_BYTES]) == before.number:
            place = max(place - 1, 0)
        given[place] += 1
    return given


def beyond_slack(lives: Iterable[Life], counts: Iterable[int]) -> list[Violation]:
    """Lives whose books and ledger differ by more than they may. Below zero: more was given out, or is
    accounted for, than was ever recorded."""
    return [
        Violation("unexplained", f"life {life.number}: {count} pairs, of {life.slack} that a kill may cost")
        for life, count in zip(lives, counts, strict=True)
        if abs(count) > life.slack
    ]


def unbalanced(status: Mapping[str, Any]) -> list[Violation]:
    """Pools whose books do not add up in this status."""
    found = []
    for spec, pool in status["pools"].items():
        come = pool["generated"] + pool["restored"]
        gone = sum(pool[place] for place in ("issued", "discarded", "held", "ready", "in_hand"))
        if come != gone:
            found.append(Violation("unbalanced", f"{spec}: {come} pairs came, and {gone} are accounted for"))
    return found


def _name(answer: Answer) -> str:
    return answer.public[:FINGERPRINT_BYTES].hex()


def _shown(answer: Answer) -> str:
    return f"{answer.spec} of client {answer.client}, request {answer.number}"


def _cut(found: list[Violation]) -> list[Violation]:
    """Enough to look into; the last one says how many there are."""
    if len(found) <= _MAX_EVIDENCE:
        return found
    return [
        *found[: _MAX_EVIDENCE - 1],
        Violation(found[0].rule, f"and {len(found) - _MAX_EVIDENCE + 1} more"),
    ]

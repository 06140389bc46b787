"""Rows and verdicts of a fuzzing run."""

from collections.abc import Mapping
from dataclasses import asdict

from bench.fuzz.campaign import Campaign
from bench.fuzz.covered import Seen
from bench.fuzz.daemon import Fuzzed, Witness
from bench.fuzz.tally import Finding, Tally
from bench.report import Result, Row
from bench.stats import quantiles

LEAST_REACHED = 0.30
LEAST_COVERED = 0.95
# By how much memory may rise after the warm-up. A leak of a byte or two in each message shows in a long run.
MOST_GROWTH_MIB = 4
# A daemon's ledger keeps pages of its file in memory, at most 8 MiB of them, and each pair that is made adds
# to them. With that cache cut to 64 KiB the rise over 300,000 messages was 0.2 MiB; with it, 2 MiB and more.
MOST_DAEMON_GROWTH_MIB = MOST_GROWTH_MIB + 8
_MIB = 2**20


def of_inside(campaign: Campaign, seen: Mapping[str, Seen], seen_messages: int) -> Result:
    """Of the part in process."""
    tally = campaign.tally
    result = Result(rows=[_sent("in process", campaign), _at_least("reached the dispatcher", tally)])
    for module, found in seen.items():
        verdict = "met" if found.share >= LEAST_COVERED else "missed"
        result.rows.append(
            Row(
                "inside",
                f"branches and lines of core/{module}.py",
                100 * found.share,
                "%",
                limit="at least 95",
                verdict=verdict,
            )
        )
    result.rows += [
        _growth("inside", "memory of a fuzzing process", campaign.growth, MOST_GROWTH_MIB),
        _found("inside", tally),
    ]
    result.notes = [f"branches: of the first {seen_messages} messages", *_notes(tally)]
    result.detail = _detail(campaign) | {"covered": {module: asdict(found) for module, found in seen.items()}}
    return result


def of_outside(campaign: Campaign, fuzzed: Fuzzed, witness: Witness, complaints: list[str]) -> Result:
    """Of the part over the socket."""
    tally = campaign.tally
    pairs, distinct = len(tally.public_keys), len(set(tally.public_keys))
    asked = len(witness.served_s) + witness.failures.total()
    result = Result(
        rows=[
            _sent("over the socket", campaign),
            _at_least("answered over the socket", tally),
            _all("pairs given out, each once", distinct, pairs),
            _all("requests of a good client served", len(witness.served_s), asked),
            _growth("outside", "memory of the daemon", fuzzed.memory.growth, MOST_DAEMON_GROWTH_MIB),
            _none("defects in its log", len(fuzzed.defects())),
            _none("faults of its books and queues", len(complaints)),
            _found("outside", tally),
        ]
    )
    times = quantiles([witness.served_s])
    result.rows[4:4] = [Row("outside", f"its wait, {name}", value, "s") for name, value in times.items()]
    result.notes = [*fuzzed.defects()[:10], *complaints, *_notes(tally)]
    if witness.failures:
        result.notes.append(f"the good client was refused: {dict(witness.failures)}")
    result.detail = _detail(campaign) | {
        "daemon": fuzzed.outcomes
        | {
            "peak_rss": fuzzed.memory.peak,
            "growth": fuzzed.memory.growth,
            "rss_by_s": fuzzed.memory.curve,
        },
        "good_client": {"served": len(witness.served_s), "failures": dict(witness.failures), "wait_s": times},
    }
    return result


def is_clean(result: Result) -> bool:
    """Nothing was found, and every bound was kept."""
    return not any(row.verdict == "missed" for row in result.rows)


def _sent(how: str, campaign: Campaign) -> Row:
    rate = campaign.tally.messages / campaign.wall_s
    return Row("fuzz", f"messages {how}", campaign.tally.messages, "", f"{rate:.0f} a second")


def _at_least(measure: str, tally: Tally) -> Row:
    share = tally.reached / max(tally.messages, 1)
    verdict = "met" if share >= LEAST_REACHED else "missed"
    return Row("fuzz", f"of them {measure}", 100 * share, "%", limit="at least 30", verdict=verdict)


def _all(measure: str, good: int, of: int) -> Row:
    verdict = "met" if good == of else "missed"
    return Row("outside", measure, good, "", "of", float(of), limit="all", verdict=verdict)


def _none(measure: str, bad: int) -> Row:
    return Row("outside", measure, bad, "", limit="none", verdict="missed" if bad else "met")


def _found(part: str, tally: Tally) -> Row:
    found = tally.found.total()
    verdict = "missed" if found else "met"
    return Row(part, "cases that show a defect", found, "", limit="none", verdict=verdict)


def _growth(part: str, measure: str, growth: float, most_mib: int) -> Row:
    verdict = "met" if growth <= most_mib * _MIB else "missed"
    return Row(
        part, f"{measure}, rise", max(growth, 0.0) / _MIB, "MiB", limit=f"at most {most_mib}", verdict=verdict
    )


def _notes(tally: Tally) -> list[str]:
    answers = ", ".join(f"{count} {code}" for code, count in tally.answered.most_common())
    return [
        f"{tally.cases} connections, {tally.broken} broken; answers: {answers}",
        *(told(finding) for finding in tally.findings),
    ]


def told(finding: Finding) -> str:
    """A finding in one line, with its bytes."""
    return f"FOUND {finding.kind}: {finding.detail}, case {finding.case}: {finding.stream}"


def _detail(campaign: Campaign) -> dict[str, object]:
    tally = campaign.tally
    return {
        "cases": tally.cases,
        "messages": tally.messages,
        "reached": tally.reached,
        "notifications": tally.notifications,
        "broken": tally.broken,
        "answered": dict(tally.answered),
        "found": dict(tally.found),
        "findings": [asdict(finding) for finding in tally.findings],
        "pairs": len(tally.public_keys),
        "wall_s": campaign.wall_s,
        "memory": [
            {"peak_rss": memory.peak, "growth": memory.growth, "slope_per_message": memory.slope}
            for memory in campaign.memory.values()
        ],
    }

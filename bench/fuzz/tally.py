"""What a run has counted and found."""

from collections import Counter
from dataclasses import dataclass, field

# Of one kind, so many are kept whole: the rest are the same again.
_KEPT_OF_A_KIND = 3


@dataclass(frozen=True)
class Finding:
    """A case that showed a defect. ``stream`` is hex of what was sent: made by the fuzzer, and no key's."""

    kind: str
    detail: str
    case: int
    stream: str = ""


@dataclass
class Tally:
    """Counts of some cases. ``reached``: messages that the dispatcher was given (in process) or that were
    answered (over a socket). ``public_keys``: a hash of each that was given out."""

    cases: int = 0
    messages: int = 0
    reached: int = 0
    notifications: int = 0
    broken: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    public_keys: list[int] = field(default_factory=list)

    def add(self, more: "Tally") -> None:
        self.cases += more.cases
        self.messages += more.messages
        self.reached += more.reached
        self.notifications += more.notifications
        self.broken += more.broken
        self.answered += more.answered
        for finding in more.findings:
            self._keep(finding)
        self.found += more.found
        self.public_keys += more.public_keys

    def find(self, finding: Finding) -> None:
        """Count it, and keep it if it is among the first of its kind."""
        self._keep(finding)
        self.found[finding.kind] += 1

    def _keep(self, finding: Finding) -> None:
        if sum(kept.kind == finding.kind for kept in self.findings) < _KEPT_OF_A_KIND:
            self.findings.append(finding)

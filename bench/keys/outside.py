"""Judges that are not ours, for RSA pairs: badkeys, OpenSSL's full check, and a look for shared primes.

badkeys runs with all its checks of RSA keys but the blocklist, which is not in its wheel and would have to
be downloaded. The full check is RSA_check_key, primality included, through cryptography and, for one key in
some, by the ``openssl`` program of the system. Each judge answers with complaints, never with numbers of
a key.
"""

import base64
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

from badkeys.checks import allchecks, checkpubkey
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
)

from bench.daemon import BenchError
from bench.keys.served import Served, pairs
from bench.nest import Nest
from bench.progress import Display
from bench.report import Result, Row

BADKEYS_CHECKS = tuple(
    name for name, check in allchecks.items() if check["type"] == "rsa" and name != "blocklist"
)
_PROGRAM_EVERY = 20  # one key in so many goes to the openssl program, which costs a process each


def badkeys(pair: Served) -> list[str]:
    """What badkeys says of the public key."""
    pem = f"-----BEGIN PUBLIC KEY-----\n{base64.encodebytes(pair.public).decode()}-----END PUBLIC KEY-----\n"
    verdict = checkpubkey(pem, checks=BADKEYS_CHECKS)
    if verdict["type"] != "rsa":
        return [f"badkeys: {verdict['type']}"]
    return [f"badkeys: {check}" for check in verdict["results"]]


def openssl(pair: Served) -> list[str]:
    """OpenSSL's full check of the private key, and whether the public one belongs to it."""
    try:
        key: Any = load_der_private_key(pair.private, None)
    except ValueError:
        return ["OpenSSL: the full check refuses the private key"]
    if not isinstance(key, rsa.RSAPrivateKey):
        return ["OpenSSL: no RSA key"]
    encoded = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return [] if encoded == pair.public else ["OpenSSL: the public key is another's"]


def openssl_program(pair: Served) -> list[str]:
    """The full check by the system's own OpenSSL. Raises ``BenchError`` where there is none."""
    program = shutil.which("openssl")
    if program is None:
        raise BenchError("there is no openssl program here: apt-get install openssl")
    done = subprocess.run(
        [program, "rsa", "-inform", "DER", "-check", "-noout"],
        input=pair.private,
        capture_output=True,
        check=False,
    )
    return [] if b"RSA key ok" in done.stdout + done.stderr else ["openssl rsa -check: not ok"]


class PrimesSeen:
    """All primes of the keys so far: with private keys at hand a shared one is found by look-up."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def __call__(self, pair: Served) -> list[str]:
        key: Any = load_der_private_key(pair.private, None, unsafe_skip_rsa_key_validation=True)
        numbers = key.private_numbers()
        primes = {numbers.p, numbers.q}
        shared = len(primes) < 2 or not self._seen.isdisjoint(primes)
        self._seen |= primes
        return ["a prime was seen before"] if shared else []


class Bench:
    """All judges, with what each has looked at, complained of, and taken."""

    def __init__(self) -> None:
        self.judges: dict[str, Callable[[Served], list[str]]] = {
            f"badkeys, {len(BADKEYS_CHECKS)} checks": badkeys,
            "OpenSSL's full check": openssl,
            "openssl rsa -check": openssl_program,
            "primes never seen before": PrimesSeen(),
        }
        self.judged: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.wall_s: defaultdict[str, float] = defaultdict(float)
        self.complaints: Counter[str] = Counter()
        self._keys = 0

    def judge(self, pair: Served) -> None:
        self._keys += 1
        for name, judge in self.judges.items():
            if judge is openssl_program and self._keys % _PROGRAM_EVERY != 1:
                continue
            started = perf_counter()
            complaints = judge(pair)
            self.wall_s[name] += perf_counter() - started
            self.judged[name] += 1
            self.refused[name] += bool(complaints)
            self.complaints.update(f"{pair.spec}: {complaint}" for complaint in complaints)


def measure(home: Nest, wanted: Mapping[str, int], display: Display) -> tuple[Result, bool]:
    """The part, and whether no judge complained."""
    bench, started = Bench(), perf_counter()
    with display.step("outside: judging served pairs", sum(wanted.values())) as step:
        for pair in pairs(home, wanted):
            bench.judge(pair)
            step.advance()
    sizes = ", ".join(f"{count} {spec}" for spec, count in wanted.items())
    result = Result(notes=[f"keys: {sizes}", f"badkeys: {', '.join(BADKEYS_CHECKS)}"])
    for name in bench.judges:
        passed = bench.judged[name] - bench.refused[name]
        result.rows.append(
            Row(
                "outside",
                name,
                passed,
                "keys pass",
                "of",
                float(bench.judged[name]),
                limit="all",
                verdict="missed" if bench.refused[name] else "met",
            )
        )
    result.notes += [f"COMPLAINT: {count} x {text}" for text, count in bench.complaints.items()]
    result.detail = {
        "keys": dict(wanted),
        "judged": dict(bench.judged),
        "complaints": dict(bench.complaints),
        "mean_s": {name: bench.wall_s[name] / bench.judged[name] for name in bench.judged},
        "wall_s": perf_counter() - started,
    }
    return result, not bench.complaints

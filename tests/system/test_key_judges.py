"""Judges of served keys: each finds the weak keys that are planted for it, a lenient check is caught, and
what a daemon serves passes."""

import functools
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from math import gcd, lcm
from pathlib import Path
from typing import Any, cast

import gmpy2
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from bench.keys import damage, flips, outside
from bench.keys.__main__ import wanted
from bench.keys.outside import Bench, PrimesSeen, badkeys, openssl, openssl_program
from bench.keys.served import Served
from bench.nest import Nest
from bench.progress import Display
from kpcache.core.specs import MAKEABLE
from kpcache.worker.checks import check
from kpcache.worker.generate import generate

ROOT = Path(__file__).parents[2]
_luck = random.Random(65537)
# M' of the ROCA paper, as in badkeys: primes of the form k * M + 65537^a mod M are those of the broken chips.
_ROCA_MODULUS = 0x924CBA6AE99DFA084537FACC54948DF0C23DA044D8CABE0EDD75BC6


@functools.cache
def served(spec: str = "RSA_2048") -> Served:
    return Served(spec, *generate(spec))


def prime(draw: Callable[[], int], e: int = 65537) -> int:
    """A drawn prime p with p - 1 prime to e."""
    while True:
        candidate = draw()
        if gmpy2.is_prime(candidate) and gcd(candidate - 1, e) == 1:
            return candidate


def of_1024_bits() -> int:
    return _luck.getrandbits(1022) | 3 << 1022 | 1


def roca() -> int:
    high = _luck.getrandbits(1022 - _ROCA_MODULUS.bit_length()) | 3 << (1023 - _ROCA_MODULUS.bit_length())
    return high * _ROCA_MODULUS + pow(65537, _luck.getrandbits(60), _ROCA_MODULUS)


def planted(p: int, q: int, e: int = 65537, order: int | None = None) -> Served:
    """The key of these numbers in DER, prime or not."""
    p, q = max(p, q), min(p, q)
    d = pow(e, -1, order or lcm(p - 1, q - 1))
    key = rsa.RSAPrivateNumbers(
        p=p, q=q, d=d, dmp1=d % (p - 1), dmq1=d % (q - 1), iqmp=pow(q, -1, p),
        public_numbers=rsa.RSAPublicNumbers(e, p * q),
    ).private_key(unsafe_skip_rsa_key_validation=True)  # fmt: skip
    return Served(
        "RSA_2048",
        key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    )


def close_primes() -> Served:
    p = prime(of_1024_bits)
    following = p
    while True:
        following = int(gmpy2.next_prime(following))
        if gcd(following - 1, 65537) == 1:
            return planted(p, following)


def composite() -> Served:
    """q is a product of two primes, and all other numbers are right for that."""
    factors = [prime(lambda: _luck.getrandbits(510) | 3 << 510 | 1) for _ in range(2)]
    p = prime(of_1024_bits)
    return planted(p, factors[0] * factors[1], order=lcm(p - 1, factors[0] - 1, factors[1] - 1))


def small_factor() -> Served:
    return planted(prime(lambda: _luck.getrandbits(2030) | 3 << 2030 | 1), 65521)


def exponent_3() -> Served:
    return planted(prime(of_1024_bits, 3), prime(of_1024_bits, 3), 3)


def another_public_key() -> Served:
    return Served("RSA_2048", served().private, planted(prime(of_1024_bits), prime(of_1024_bits)).public)


WEAK: dict[str, tuple[Callable[[], Served], Callable[[Served], list[str]], str]] = {
    "close primes": (close_primes, badkeys, "badkeys: fermat"),
    "ROCA": (lambda: planted(prime(roca), prime(roca)), badkeys, "badkeys: roca"),
    "small exponent": (exponent_3, badkeys, "badkeys: rsawarnings"),
    "small factor": (small_factor, badkeys, "badkeys: smallfactors"),
    "no SPKI": (lambda: Served("RSA_2048", served().private, b"x"), badkeys, "badkeys: unparseable"),
    "no RSA key": (lambda: served("ECC_NIST_P256"), badkeys, "badkeys: ec"),
    "composite": (composite, openssl, "OpenSSL: the full check refuses the private key"),
    "composite, to the program": (composite, openssl_program, "openssl rsa -check: not ok"),
    "another public key": (another_public_key, openssl, "OpenSSL: the public key is another's"),
    "an EC key": (lambda: served("ECC_NIST_P256"), openssl, "OpenSSL: no RSA key"),
    "no key at all": (lambda: Served("RSA_2048", b"x", b"x"), openssl, "OpenSSL: the full check refuses"),
}


@pytest.mark.parametrize(("plant", "judge", "complaint"), WEAK.values(), ids=WEAK)
def test_a_planted_weak_key_is_reported(
    plant: Callable[[], Served], judge: Callable[[Served], list[str]], complaint: str
) -> None:
    assert [said for said in judge(plant()) if complaint in said]


def test_a_shared_prime_is_reported_whichever_it_is() -> None:
    p, q, r = (prime(of_1024_bits) for _ in range(3))
    seen = PrimesSeen()
    assert seen(planted(p, q)) == []
    assert seen(planted(q, r)) == ["a prime was seen before"]
    assert seen(served()) == []
    assert seen(served()) == ["a prime was seen before"]


def test_all_judges_let_a_sound_key_pass() -> None:
    """Of our generator, and made by hand as the weak ones are: it is not their form that is reported."""
    bench = Bench()
    for pair in (served(), planted(prime(of_1024_bits), prime(of_1024_bits))):
        bench.judge(pair)
    assert not bench.complaints
    assert sorted(bench.judged.values()) == [1, 2, 2, 2]  # the program looks at one in twenty


def test_badkeys_runs_with_all_its_checks_of_rsa_keys_but_the_blocklist() -> None:
    assert {"fermat", "roca", "sharedprimes", "smalld", "smallfactors", "rsapoly"} < set(
        outside.BADKEYS_CHECKS
    )
    assert "blocklist" not in outside.BADKEYS_CHECKS


def test_complaints_are_counted_and_make_the_part_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def pairs(*_: object) -> Iterator[Served]:
        yield from (served(), close_primes(), served())

    monkeypatch.setattr(outside, "pairs", pairs)
    result, passed = outside.measure(cast(Nest, None), {"RSA_2048": 3}, Display())
    assert not passed
    assert [(row.value, row.other, row.verdict) for row in result.rows] == [
        (2, 3, "missed"), (3, 3, "met"), (1, 1, "met"), (2, 3, "missed"),
    ]  # fmt: skip
    assert result.detail["complaints"] == {
        "RSA_2048: badkeys: fermat": 1, "RSA_2048: a prime was seen before": 1,
    }  # fmt: skip


# --- damages


@pytest.mark.parametrize("spec", ["RSA_2048", "ECC_NIST_EDWARDS25519"])
def test_every_damage_of_a_pair_is_found(spec: str) -> None:
    found = flips.study(served(spec), Served(spec, *generate(spec)), served("ECC_NIST_P256"))
    assert found.missed == found.refused_whole == []
    assert found.flips == 8 * (len(served(spec).private) + len(served(spec).public))
    assert found.others == 17 + 2 * (spec == "RSA_2048")
    assert found.reasons.total() == found.flips + found.others


def test_a_check_that_looks_away_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, foreign = (
        served("ECC_NIST_EDWARDS25519"),
        Served("ECC_NIST_EDWARDS25519", *generate("ECC_NIST_EDWARDS25519")),
    )
    monkeypatch.setattr(flips, "check", lambda spec, private, _public: check(spec, private, pair.public))
    found = flips.study(pair, foreign, served("ECC_NIST_P256"))
    assert [name for name in found.missed if "bit" in name] == [
        f"public bit {bit}" for bit in range(8 * len(pair.public))
    ]
    assert "public key of another pair" in found.missed
    assert {row.verdict for row in flips._report({pair.spec: found}).rows} == {"missed"}


def test_a_check_that_refuses_all_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flips, "check", lambda *_: "no")
    pair = served("ECC_NIST_EDWARDS25519")
    assert flips.study(pair, pair, pair).refused_whole == ["no"]


def test_each_flip_changes_one_bit_and_each_bit_is_flipped_once() -> None:
    pair = served("ECC_NIST_P256")
    whole = int.from_bytes(pair.private + pair.public, "big")
    changed = {whole ^ int.from_bytes(private + public, "big") for _, private, public in damage.flips(pair)}
    assert changed == {1 << bit for bit in range(8 * len(pair.private + pair.public))}


def test_what_nobody_can_judge_is_left_out() -> None:
    names = [name for name, *_ in damage.flips(served("ML_KEM_768"))]
    last = max(int(name.split()[-1]) for name in names if name.startswith("private"))
    assert last == 8 * (len(served("ML_KEM_768").private) - 32) - 1


def test_exchanged_primes_are_a_key_of_the_same_numbers() -> None:
    """The second of the two is sound by RFC 8017, so that it is found shows more than arithmetic."""
    others: dict[str, Any] = {
        name: (private, public) for name, private, public in damage.others(served(), served(), served())
    }
    raw, turned = (others[f"p and q exchanged{rest}"] for rest in ("", ", with dP, dQ and qInv"))
    assert openssl(Served("RSA_2048", *turned)) == []
    assert openssl(Served("RSA_2048", *raw)) != []
    assert len(raw[0]) == len(served().private)
    assert check("RSA_2048", *turned) == "p is not the larger prime"


def test_how_many_keys_a_part_asks_for() -> None:
    assert wanted("outside", None, []) == {"RSA_2048": 9700, "RSA_3072": 250, "RSA_4096": 50}
    assert wanted("outside", 7, ["RSA_4096", "ECC_NIST_P256"]) == {"RSA_4096": 7}
    assert wanted("flips", 2, ["ML_KEM_768"]) == {"ML_KEM_768": 2}
    full = wanted("flips", None, [])
    assert set(full) == set(MAKEABLE)
    assert (full["RSA_4096"], full["ECC_NIST_P384"]) == (100, 5)


# --- the command


def judged(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "bench.keys", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_served_pairs_are_judged_by_their_bytes_and_by_judges_that_are_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "judged.json"
    done = judged("--keys", "3", "--spec", "RSA_2048", "--spec", "ECC_NIST_EDWARDS25519", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads(path.read_text())["parts"]
    assert {row["verdict"] for part in parts.values() for row in part["rows"]} == {"met"}
    flips = parts["flips"]["detail"]
    assert (flips["RSA_2048"]["keys"], flips["RSA_2048"]["others"]) == (3, 57)
    assert flips["RSA_2048"]["flips"] > 36_000
    assert flips["ECC_NIST_EDWARDS25519"]["missed"] == []
    outside = parts["outside"]["detail"]
    assert outside["keys"] == {"RSA_2048": 3}
    assert sorted(outside["judged"].values()) == [1, 3, 3, 3]


@pytest.mark.parametrize(
    "arguments", [["nobody"], ["--keys", "0"], ["--spec", "DSA"], ["outside", "--spec", "ECC_NIST_P256"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    done = judged(*arguments)
    assert done.returncode == 2
    assert "usage" in done.stderr

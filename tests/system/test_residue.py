"""Private keys that were given out are gone from all processes' memory, and would not be by themselves."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from kpcache.worker.wiping import missing
from tests.system.harness import pools, running
from tests.system.residue import Search
from tests.system.shard_driver import shard

PAIRS = {"RSA_2048": 24, "ECC_NIST_P256": 24, "ECC_NIST_P521": 12}
# Of how many keys one process may still have a part: what a function did last may lie on its stack, which
# no allocator overwrites. On the machine this was written on none was left.
LAST_BUFFERS = 1
# Makers that wait for an idle CPU could take for ever on a busy machine.
SCHEDULING = '[workers]\nscheduling = "normal"\n'


def left_after_giving_out(folder: Path) -> tuple[bool, dict[str, Counter[str]]]:
    """Whether the daemon says that it wipes, and what is left of all pairs once they have been given out."""
    with running(folder, SCHEDULING + pools(**PAIRS)) as daemon:
        daemon.wait_full()
        with daemon.client() as client:
            keys = [
                client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=spec)["PrivateKeyPlaintext"]
                for spec, count in PAIRS.items()
                for _ in range(count)
            ]
            status = client.status()
        assert all(status["pools"][spec]["dry"] == 0 for spec in PAIRS)
        names = {daemon.process.pid: "daemon"}
        names |= {worker["pid"]: worker["role"] for worker in status["workers"]}
        assert Counter(names.values()) == {"daemon": 1, "shard": 2, "maker": 2}
        return status["memory"]["wiped_on_free"], Search(keys).report(names)


def test_what_was_given_out_is_gone_from_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in missing({}):
        monkeypatch.delenv(name, raising=False)
    wiped, left = left_after_giving_out(tmp_path)
    assert wiped
    assert all(residue.total() <= LAST_BUFFERS for residue in left.values()), left


def test_without_wiping_the_same_search_finds_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_PERTURB_", "0")
    wiped, left = left_after_giving_out(tmp_path)
    assert not wiped
    assert {name.partition(" ")[0] for name in left} >= {"daemon", "shard"}, left
    assert sum(residue.total() for residue in left.values()) > 10, left


@pytest.mark.parametrize("inherit", [missing({}), {"MALLOC_PERTURB_": "0"}], ids=["wiping", "not wiping"])
def test_a_maker_has_nothing_of_the_last_pair_that_it_made(
    inherit: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At rest, so also not where the last function that saw the pair had its variables."""
    for name in missing({}):
        monkeypatch.delenv(name, raising=False)
    with shard(inherit=inherit, scheduling="normal") as driver:
        maker = driver.start_maker()
        driver.fill("RSA_2048", 3)
        _, batch = driver.draw("RSA_2048", 3)
        search = Search([private for _, _, private, *_ in batch])
        left = search.report({driver.process.pid: "shard", maker: "maker"})
    names = {name.partition(" ")[0] for name in left}
    assert names == (set() if "PYTHONMALLOC" in inherit else {"shard", "maker"}), left


# Holds what it is sent, in hexadecimal digits, as bytes; or as an integer, of which it keeps nothing else.
HOLDER = """
import sys
held = {"bytes": bytes.fromhex, "integer": lambda line: int(line, 16)}[sys.argv[1]](sys.stdin.readline())
print(flush=True)
sys.stdin.readline()
"""
KEY = rsa.generate_private_key(65537, 2048)
DER = KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
P = KEY.private_numbers().p.to_bytes(128, "big")
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
PUBLIC = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("kind", "held", "form"),
    [
        ("bytes", DER, "big-endian, as in DER"),
        ("bytes", P[50:65], "big-endian, as in DER"),
        ("bytes", P[::-1], "little-endian"),
        ("bytes", PEM, "base64"),
        ("integer", P, "digits of an integer"),
        ("bytes", PUBLIC, None),
    ],
    ids=["DER", "15 bytes of p", "reversed", "PEM", "integer", "public"],
)
def test_the_search_finds_each_form_and_a_part_of_it_and_nothing_public(
    kind: str, held: bytes, form: str | None
) -> None:
    command = [sys.executable, "-c", HOLDER, kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(held.hex().encode() + b"\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == b"\n"
        residue = Search([DER]).residue(holder.pid)
        holder.communicate(b"\n")
    assert {where.rpartition(", ")[0] for where in residue} == ({form} if form else set())

"""The promise: no pair twice, none malformed, however many clients take them at once.

Random pairs never collide by chance, so "no duplicates" alone proves nothing: the same test runs against
a daemon whose "take before build" has been turned off, and must then report duplicates.
"""

import hashlib
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from kpcache import Client
from kpcache.core.specs import MAKEABLE
from tests.system.harness import Daemon, pools, running

CLIENTS = 8
QUICK = [spec for spec in MAKEABLE if not spec.startswith("RSA")]
KEY_ID = "alias/kpcache"


def take(daemon: Daemon, spec: str, count: int) -> list[tuple[bytes, bytes]]:
    """``count`` pairs, taken by eight clients at once: (private, public)."""
    pairs: list[tuple[bytes, bytes]] = []
    failures: list[BaseException] = []

    def client_life(share: int) -> None:
        try:
            with Client(daemon.socket) as client:
                for _ in range(share):
                    answer = client.generate_data_key_pair(KeyId=KEY_ID, KeyPairSpec=spec)
                    pairs.append((answer["PrivateKeyPlaintext"], answer["PublicKey"]))
        except BaseException as error:
            failures.append(error)

    shares = [count // CLIENTS + (number < count % CLIENTS) for number in range(CLIENTS)]
    threads = [threading.Thread(target=client_life, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return pairs


def duplicates(pairs: list[tuple[bytes, bytes]]) -> int:
    """Private keys handed out more than once."""
    counts = Counter(hashlib.sha256(private).digest() for private, _ in pairs)
    return sum(count - 1 for count in counts.values())


def is_sound(private: bytes, public: bytes) -> bool:
    """An outside judge: cryptography parses both, with its own checks, and they belong together."""
    derived = load_der_private_key(private, None, unsafe_skip_rsa_key_validation=True).public_key()
    spki = derived.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return spki == public and load_der_public_key(public) is not None


def assert_books_balance(daemon: Daemon, spec: str, issued: int) -> None:
    """generated + restored = issued + discarded + held + ready + in hand, and issued is what clients got."""
    pool = daemon.status()["pools"][spec]
    spent = sum(pool[place] for place in ("issued", "discarded", "held", "ready", "in_hand"))
    assert pool["generated"] + pool["restored"] == spent, pool
    assert pool["issued"] == issued, pool


@pytest.mark.parametrize(("spec", "count"), [*((spec, 10_000) for spec in QUICK), ("RSA_2048", 500)])
def test_no_pair_twice_and_none_malformed(tmp_path: Path, spec: str, count: int) -> None:
    with running(tmp_path, pools(**{spec: 512})) as daemon:
        pairs = take(daemon, spec, count)
        assert_books_balance(daemon, spec, count)
    assert len(pairs) == count
    assert duplicates(pairs) == 0
    assert all(is_sound(private, public) for private, public in pairs)


def test_a_pair_left_in_the_ready_set_is_reported(tmp_path: Path) -> None:
    """The guard turned off: this daemon builds the answer from a pair that it leaves in the ready set."""
    program = str(Path(__file__).with_name("leaky_daemon.py"))
    daemon = Daemon(tmp_path, pools(ECC_NIST_P256=256), [sys.executable, program])
    try:
        daemon.wait_log("serves on")
        assert duplicates(take(daemon, "ECC_NIST_P256", 200)) > 0
    finally:
        daemon.kill()

"""Pairs as a client gets them: from a real daemon of the bench's own, through the client."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

from bench.daemon import CONTEXT, KEY_ID, BenchError, Daemon
from bench.nest import Nest

# The makers are what is waited for here, so they work like any program, on a loaded machine too.
_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "workers": {"scheduling": "normal"},
    "refill": {"heed_pressure": False},
    "requests": {"wait_timeout_s": 120.0},
}
_WAIT_S = 120.0
_LARGEST_POOL = 32  # enough that makers never rest while the judge is at work


class Served(NamedTuple):
    """One served pair: DER PKCS#8 and DER SubjectPublicKeyInfo."""

    spec: str
    private: bytes
    public: bytes

    def __repr__(self) -> str:
        return f"<Served {self.spec}>"


def pairs(home: Nest, wanted: Mapping[str, int]) -> Iterator[Served]:
    """So many pairs of each spec. Raises ``BenchError``, or ``ThrottlingException`` when none comes."""
    pools = {spec: (min(count, _LARGEST_POOL),) * 2 for spec, count in wanted.items() if count}
    daemon = Daemon(home, "daemon", pools, _SETTINGS)
    try:
        for spec, count in wanted.items():
            for _ in range(count):
                answer = daemon.client.generate_data_key_pair(
                    KeyId=KEY_ID, KeyPairSpec=cast(Any, spec), EncryptionContext=CONTEXT, wait_s=_WAIT_S
                )
                yield Served(spec, answer["PrivateKeyPlaintext"], answer["PublicKey"])
        # A judge of what is served would not see a check that refuses sound pairs, and be slow to say so.
        if unsound := {spec: why for spec, why in daemon.status()["discarded"].items() if "unsound" in why}:
            raise BenchError(f"fresh pairs were refused by the makers' own check: {unsound}")
    finally:
        daemon.stop()

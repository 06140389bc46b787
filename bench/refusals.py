"""Whether the time of a refused decryption tells which check refused: each kind against a wrong tag."""

import os
from collections.abc import Callable

from bench.report import Result, Row
from bench.run import Run, time_calls
from bench.stats import Study, compare, quantiles
from kpcache.errors import InvalidCiphertextException
from kpcache.keyring import Keyring, changes

_ALIAS = "alias/bench"
_PLAINTEXT_BYTES = 1217  # of an RSA_2048 private key
_CONTEXT = {"app": "billing", "tenant": "1"}
_BASE, _TWIN = "tag", "tag, again"
# Where one bit of the blob is flipped: the fields of core/envelope. -1: in the tag.
_FLIPS = {
    _BASE: -1,
    _TWIN: -1,
    "magic": 0,
    "version": 4,
    "key id": 5,
    "material id": 21,
    "salt": 53,
    "commitment": 85,
    "nonce": 117,
    "ciphertext": 129,
}


def measure(run: Run) -> Result:
    """The part. In this process: what a client sees is this time and the noise of a socket."""
    rounds, calls = run.size(400, 40), run.size(100, 50)
    arms = {arm: _refused(*each) for arm, each in _blobs().items()}
    samples: dict[str, list[list[float]]] = {arm: [] for arm in arms}
    with run.display.step("refusals", rounds) as step:
        for _ in range(rounds):
            for arm in run.shuffled(list(arms)):
                samples[arm].append(time_calls(arms[arm], calls))
            step.advance()
    study = Study(samples, quantiles, run.rng, run.repeats)
    control = study.ratio(_TWIN, _BASE, "p50")
    result = Result(notes=["a decryption that succeeds is not among them: that it does is no secret"])
    for arm in arms:
        if arm not in (_BASE, _TWIN):
            ratio = study.ratio(arm, _BASE, "p50")
            value, other = (study.estimate(each, "p50").value for each in (arm, _BASE))
            verdict = compare(ratio, control)
            result.rows.append(
                Row(
                    "refusals", f"refused: {arm}", value, "s", "wrong tag", other, ratio, control, "", verdict
                )
            )
    return result


def _blobs() -> dict[str, tuple[Keyring, bytes, dict[str, str]]]:
    ring, stranger = (Keyring(changes.first(_ALIAS, 0.0, os.urandom)) for _ in range(2))
    blob, other = (
        each.encrypt(each.resolve(_ALIAS), os.urandom(_PLAINTEXT_BYTES), _CONTEXT).blob
        for each in (ring, stranger)
    )
    flipped = {arm: (ring, _flip(blob, at), _CONTEXT) for arm, at in _FLIPS.items()}
    return {
        **flipped,
        "another context": (ring, blob, {**_CONTEXT, "tenant": "2"}),
        "another keyring": (ring, other, _CONTEXT),
        "random bytes": (ring, os.urandom(len(blob)), _CONTEXT),
    }


def _flip(blob: bytes, at: int) -> bytes:
    flipped = bytearray(blob)
    flipped[at] ^= 1
    return bytes(flipped)


def _refused(ring: Keyring, blob: bytes, context: dict[str, str]) -> Callable[[], None]:
    def call() -> None:
        try:
            ring.decrypt(blob, context)
        except InvalidCiphertextException:
            return
        raise AssertionError("opened")

    return call

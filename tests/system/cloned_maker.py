"""A maker's own code in a process that is copied, as a machine's copies have it: same memory, same pid.

    cloned_maker.py between SPEC KEYS GUARD     copied between two keys
    cloned_maker.py within SPEC CLOCK GUARD     copied within a key; CLOCK is a file in the VMClock's form

GUARD is ``guarded`` or ``bare``: between keys, whether randomness is mixed in before each; within one,
whether the clock is looked at. Needs root, for PID namespaces: a process in one of its own has pid 1 there,
and so has a child for which it made another. OpenSSL tells a fork by the pid alone: it takes the two for one.

Prints a line of JSON for each of the two: which tags its keys have (``worker/checks.tags``, no key can be had
from them), and how it ended. Never for use.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from kpcache.core.pipe import FrameReader
from kpcache.worker import maker as maker_module
from kpcache.worker.generate import generate, reseeder
from kpcache.worker.generation import Source, Unknown, VmClock
from kpcache.worker.maker import Life, Maker, SpentError
from tests.vmclock import StandIn

_CLONE_NEWPID = 0x20000000  # <linux/sched.h>
_TAG_KEY = b"k" * 32
# Of CPU time, into a key of RSA_4096; of 60 the quickest took 0.057 s as a whole.
_WITHIN_S = 0.02
# fork(2) itself: os.fork would tell Python and others of it, which nobody does when a machine is copied.
_libc = ctypes.PyDLL(None, use_errno=True)


class Sink:
    """Takes what a maker sends."""

    def __init__(self) -> None:
        self._reader = FrameReader()
        self.tags: list[str] = []

    def sendall(self, data: bytes) -> None:
        for message in self._reader.feed(data):
            if message[0] == "made":
                self.tags += [tag.hex() for pair in message[3] for tag in pair[4]]


def _own_namespace_for_children() -> None:
    if _libc.unshare(_CLONE_NEWPID):
        raise OSError(ctypes.get_errno(), "no PID namespace can be made")


def _namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


def _make(spec: str, keys: int, source: Source, before_key: Callable[[], None]) -> dict[str, Any]:
    sink, spent = Sink(), ""
    try:
        Maker(cast(Any, sink), _TAG_KEY, source, Life(10_000, 3600.0), before_key).make(1, spec, keys)
    except SpentError as error:
        spent = str(error)
    return {"tags": sink.tags, "spent": spent, "pid": os.getpid()}


def _reseed() -> None:
    reseed = reseeder()
    assert reseed is not None
    reseed()


def _nothing() -> None:
    """The guard is off."""


def _between(spec: str, keys: int, before_key: Callable[[], None]) -> None:
    _make(spec, 1, Unknown(), before_key)  # the generator is in use
    _own_namespace_for_children()
    is_copy = _libc.fork() == 0
    _tell(is_copy, _make(spec, keys, Unknown(), before_key))


def _within(spec: str, clock: StandIn, is_guarded: bool) -> None:
    """Copied while it makes its second key, by a timer of its own."""
    _make("ECC_NIST_P256", 1, Unknown(), _reseed)
    _own_namespace_for_children()
    first, inside = _namespace(), []

    def watched(spec: str) -> tuple[bytes, bytes]:
        # The maker has looked at the clock. What it shows in a copy it shows before anything else runs there.
        clock.generation += 1
        signal.setitimer(signal.ITIMER_PROF, _WITHIN_S)
        pair = generate(spec)
        inside.append(_namespace() != first)
        return pair

    vars(maker_module)["generate"] = watched
    # The handler is fork itself, so the copy is made in the midst of OpenSSL's work.
    _libc.signal(signal.SIGPROF, ctypes.cast(_libc.fork, ctypes.c_void_p))
    result = _make(spec, 1, VmClock(str(clock.path)) if is_guarded else Unknown(), _reseed)
    _tell(_namespace() != first, {**result, "copied_within_a_key": inside == [True]})


def _tell(is_copy: bool, result: dict[str, Any]) -> None:
    """One write, so that the lines of the two do not mix."""
    os.write(1, json.dumps({"copy": is_copy, **result}).encode() + b"\n")
    if is_copy:
        os._exit(0)
    os.waitpid(-1, 0)


def main() -> int:
    kind, spec, third, guard = sys.argv[1:]
    _own_namespace_for_children()
    original = os.fork()
    if original == 0:
        if kind == "between":
            _between(spec, int(third), _reseed if guard == "guarded" else _nothing)
        else:
            _within(spec, StandIn(Path(third)), guard == "guarded")
        return 0
    return os.waitstatus_to_exitcode(os.waitpid(original, 0)[1])


if __name__ == "__main__":
    sys.exit(main())

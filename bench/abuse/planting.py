"""How the harness plants its faults: by replacing named functions of the product, which knows nothing of it.

What is replaced is named as ``module:Class.attribute``. A name that is gone raises ``PlantError``: a function
that was renamed must not turn a fault into nothing, unseen.
"""

import importlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

DELAY_S: Final = 0.05
STALL_S: Final = 5.0
ACTIONS: Final = ("kill", "raise", "delay", "stall")


class PlantError(Exception):
    """A fault cannot be planted: what it is planted in is gone, or it is described wrongly."""


class PlantedError(Exception):
    """The exception that a failpoint raises."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a program of the harness does beside the product's work; it travels as an argument.

    - ``fail``: ``point:action[:when]``, see ``Trigger``; ``marks``: the file that gets a line each time.
    - ``off``: a guard that is turned off. ``fault``: what a guard is against, planted with the guard on.
    - ``healthy_life_s``: after how many seconds a worker's death is its first again; None: as in the product.
    - ``clock``: a file with the seconds by which the wall clock is wrong.
    """

    fail: str = ""
    marks: str = ""
    off: str = ""
    fault: str = ""
    healthy_life_s: float | None = None
    clock: str = ""

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> "Plan":
        return cls(**json.loads(text))


class Trigger:
    """Fires when a failpoint is passed: each n-th time (``point:action:3``), with a chance
    (``point:action:0.1``), or always. Each process counts for itself."""

    def __init__(self, fail: str, marks: str) -> None:
        self.point, _, rest = fail.partition(":")
        self.action, _, when = rest.partition(":")
        if self.action not in ACTIONS:
            raise PlantError(f"no action {self.action!r}: choose from {', '.join(ACTIONS)}")
        try:
            self._chance = float(when) if "." in when else None
            self._every = 1 if self._chance is not None else int(when or 1)
        except ValueError as error:
            raise PlantError(f"{when!r} is neither a number of times nor a chance") from error
        if self._every < 1:
            raise PlantError("a failpoint fires each n-th time, n from 1 up")
        self._marks = marks
        self._passed = 0

    def fires(self) -> bool:
        """The failpoint is passed: whether it is time to ``act``."""
        self._passed += 1
        if self._chance is not None:
            return random.random() < self._chance
        return self._passed % self._every == 0

    def act(self) -> None:
        """Note it, then do it. Raises ``PlantedError`` if that is what is to be done."""
        # One write of a few bytes to a file that is only appended to: whole, however many processes write.
        fd = os.open(self._marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.write(fd, f"{self.point} {self.action} {os.getpid()}\n".encode())
        os.close(fd)
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.action == "raise":
            raise PlantedError("planted by the harness")
        else:
            time.sleep(STALL_S if self.action == "stall" else DELAY_S)

    def __call__(self) -> None:
        if self.fires():
            self.act()


def owner_of(target: str) -> tuple[Any, str]:
    """The module or class that has ``target``, and the attribute's name. Raises ``PlantError``."""
    module_name, _, path = target.partition(":")
    *classes, name = path.split(".")
    try:
        owner = importlib.import_module(module_name)
        for each in classes:
            owner = vars(owner)[each]
        vars(owner)[name]
    except (ImportError, KeyError) as error:
        raise PlantError(f"{target} is no more: name here what does its work now") from error
    return owner, name


def plant(target: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put ``make(original)`` in the place of ``target``. Raises ``PlantError`` if there is no such thing."""
    owner, name = owner_of(target)
    setattr(owner, name, make(vars(owner)[name]))

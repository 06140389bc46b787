"""The machine and the versions, without anything that names it."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend

from bench.run import CPUS


def describe() -> dict[str, str]:
    """Words for the table's foot and the JSON."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return {
        "cpu": f"{CPUS} x {_cpu_model()}" + (" (virtual)" if "hypervisor" in _cpu_flags() else ""),
        "memory": f"{memory:.0f} GiB",
        "kernel": f"Linux {platform.release().partition('-')[0]}",
        "python": f"Python {platform.python_version()}",
        "openssl": " ".join(backend.openssl_version_text().split()[:2]),
        "packages": ", ".join(f"{name} {version(name)}" for name in ("cryptography", "trio", "msgpack")),
        "load": f"load before the start {load}",
    }


def _cpu_line(name: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _cpu_model() -> str:
    return _cpu_line("model name") or platform.machine()


def _cpu_flags() -> list[str]:
    return _cpu_line("flags").split()

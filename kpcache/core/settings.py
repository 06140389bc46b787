"""The settings: frozen records, one a table of the configuration, each value with its rule.

Every setting has a default; units stand in names. ``config/kpcache.toml`` explains each, ``config`` makes
them of a file. What depends on who runs the daemon, and on which machine, comes in as ``Defaults``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from kpcache.core import config_rules as rules
from kpcache.core.buckets import Rule
from kpcache.core.config_access import AccessSettings
from kpcache.core.readiness import LOW_WATER
from kpcache.core.shares import KEPT_PERCENT

MAX_TARGET = 100_000  # pairs of one pool


@dataclass(frozen=True)
class Defaults:
    """What depends on who runs the daemon and where. ``usable_cpus``: CPUs that this process may use."""

    socket: str
    state_dir: str
    runtime_dir: str
    usable_cpus: int


@dataclass(frozen=True, kw_only=True)
class DaemonSettings:
    """Where the daemon lives. ``admin.sock`` lies beside ``socket``. ``ready_level``: see ``readiness``;
    ``log_level``: the least that is logged."""

    socket: Annotated[Path, rules.socket]
    socket_mode: Annotated[int, rules.mode] = 0o660
    socket_group: Annotated[str, rules.text] = ""
    admin_socket_mode: Annotated[int, rules.admin_mode] = 0o600
    admin_socket_group: Annotated[str, rules.text] = ""
    state_dir: Annotated[Path, rules.folder]
    runtime_dir: Annotated[Path, rules.folder]
    ready_level: Annotated[str, rules.ready_level] = LOW_WATER
    log_level: Annotated[str, rules.one_of("debug", "info", "warning", "error")] = "info"


@dataclass(frozen=True)
class WorkerSettings:
    """``shards`` and ``makers`` are numbers of processes, "auto" already resolved; shards <= makers.

    A maker is replaced by a new process at the end of an order, after ``maker_max_keys`` keys or
    ``maker_max_age_s``.
    """

    shards: Annotated[int, rules.auto_or_integer(1, 64)] = 0
    makers: Annotated[int, rules.auto_or_integer(1, 1024)] = 0
    scheduling: Annotated[str, rules.one_of("idle", "batch", "normal")] = "idle"
    maker_max_keys: Annotated[int, rules.integer(1, 10_000_000)] = 10_000
    maker_max_age_s: Annotated[float, rules.seconds(1, 86_400)] = 3600.0


@dataclass(frozen=True)
class PoolSettings:
    """``target`` in pairs; 0: no pool, made on demand; "auto": adapted to demand, from ``min`` to ``max``.

    Those two are 0 otherwise. With "auto" the low watermark is a quarter of the target, and ``low_water`` is
    -1. ``max_age_s`` 0: no limit.
    """

    target: Annotated[int | Literal["auto"], rules.auto_or(0, MAX_TARGET)] = 0
    low_water: Annotated[int, rules.integer(-1, MAX_TARGET)] = 0
    min: Annotated[int, rules.integer(0, MAX_TARGET)] = 0
    max: Annotated[int, rules.integer(0, MAX_TARGET)] = 0
    max_age_s: Annotated[float, rules.age] = 0.0

    @property
    def is_adaptive(self) -> bool:
        return self.target == "auto"


@dataclass(frozen=True)
class RefillSettings:
    """Manners of the makers, and the bounds of all adaptive targets together."""

    max_cpu_percent: Annotated[float, rules.number(1, 100)] = 100.0
    heed_pressure: Annotated[bool, rules.boolean] = True
    dry_chance: Annotated[float, rules.number(1e-9, 0.5)] = 0.001
    max_pairs: Annotated[int, rules.integer(1, 10_000_000)] = 100_000
    max_memory_mib: Annotated[int, rules.integer(1, 1_000_000)] = 256


@dataclass(frozen=True)
class RequestSettings:
    """Limits on requests and connections."""

    on_dry: Annotated[str, rules.one_of("wait", "fail")] = "wait"
    wait_timeout_s: Annotated[float, rules.seconds(0, 3600)] = 5.0
    keep_back_percent: Annotated[float, rules.number(0, 99)] = KEPT_PERCENT
    max_connections: Annotated[int, rules.integer(1, 1_000_000)] = 12_000
    max_connections_per_uid: Annotated[int, rules.integer(1, 1_000_000)] = 4_000
    max_in_flight_per_connection: Annotated[int, rules.integer(1, 65_536)] = 256
    # The least that holds the largest request: a blob of 6144 bytes and a context of 8192.
    max_message_bytes: Annotated[int, rules.integer(16_384, 16_777_216)] = 65_536
    message_timeout_s: Annotated[float, rules.seconds(0.01, 3600)] = 5.0


@dataclass(frozen=True)
class LimitSettings:
    """One of ``[[limits]]``: see ``buckets.Rule``; "*" is each user, each spec."""

    rate_per_s: Annotated[float, rules.number(1e-6, 1e6)]
    burst: Annotated[int, rules.integer(1, 1_000_000)]
    uid: Annotated[int | Literal["*"], rules.uid_or_all] = "*"
    spec: Annotated[str, rules.spec_or_all] = "*"

    @property
    def rule(self) -> Rule:
        return Rule(
            None if self.uid == "*" else self.uid,
            None if self.spec == "*" else self.spec,
            self.rate_per_s,
            self.burst,
        )


@dataclass(frozen=True)
class MetricsSettings:
    """``listen`` is ADDRESS:PORT, "unix:" and a path, or empty for no metrics. ``hosts``: the names of
    ``core/hosts``."""

    listen: Annotated[str, rules.listen] = "127.0.0.1:9743"
    hosts: Annotated[tuple[str, ...], rules.hosts] = ()


@dataclass(frozen=True)
class KeyringSettings:
    """``passphrase_file`` is a path with ``unlock`` "passphrase-file", and empty with the others."""

    default_alias: Annotated[str, rules.alias] = "alias/kpcache"
    create: Annotated[Literal["if_empty", "never"], rules.one_of("if_empty", "never")] = "if_empty"
    unlock: Annotated[str, rules.unlock] = "file"
    passphrase_file: Annotated[str, rules.file_or_none] = ""


@dataclass(frozen=True)
class LedgerSettings:
    """``when_unavailable``: what becomes of pairs that are recorded already while no more can be."""

    when_unavailable: Annotated[Literal["serve_pooled", "stop"], rules.one_of("serve_pooled", "stop")] = (
        "serve_pooled"
    )


@dataclass(frozen=True)
class CloneGuardSettings:
    """What tells that the machine was copied: paths of the VMClock device and of the kernel's log; empty: it
    is not looked at."""

    vmclock: Annotated[str, rules.file_or_none] = "/dev/vmclock0"
    kernel_log: Annotated[str, rules.file_or_none] = "/dev/kmsg"


@dataclass(frozen=True)
class AwsSettings:
    """AWS keys are not in this version: ``enabled`` can only be false."""

    enabled: Annotated[bool, rules.boolean] = False
    keys: Annotated[tuple[str, ...], rules.strings] = ()


@dataclass(frozen=True)
class Config:
    """All settings. ``pools`` has every spec that can be made, in the spec table's order."""

    daemon: DaemonSettings
    workers: WorkerSettings
    refill: RefillSettings
    pools: Mapping[str, PoolSettings]
    requests: RequestSettings
    limits: tuple[LimitSettings, ...]
    access: tuple[AccessSettings, ...]
    metrics: MetricsSettings
    keyring: KeyringSettings
    ledger: LedgerSettings
    clone_guard: CloneGuardSettings
    aws: AwsSettings

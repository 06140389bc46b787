"""Settings: one frozen, checked record made from a mapping (a parsed TOML file), or one clear error.

Every setting has a default; units stand in names. ``config/kpcache.toml`` explains each. What depends
on who runs the daemon, and on which machine, comes in as ``Defaults``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from kpcache.core import config_rules as rules
from kpcache.core.buckets import Rule
from kpcache.core.config_access import AccessSettings, check_access
from kpcache.core.config_tables import refuse_unknown, section, shown, table, tables
from kpcache.core.readiness import LOW_WATER
from kpcache.core.shares import KEPT_PERCENT
from kpcache.core.specs import SPECS, Spec
from kpcache.core.targets import default_low_water
from kpcache.errors import ConfigError

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


_TABLES = (*(each.name for each in fields(Config)), "prewrapped")


def load(mapping: Mapping[str, object], *, defaults: Defaults) -> Config:
    """The settings in ``mapping``. Raises ``ConfigError``: the key's path, its value, what would be right."""
    refuse_unknown(mapping, _TABLES, "")
    if mapping.get("prewrapped", []) != []:
        raise ConfigError(
            "[[prewrapped]]: this version has no pre-wrapped pools. Remove it: pairs come from [pools.SPEC], "
            "and each is wrapped when it is asked for"
        )
    places = {"socket": defaults.socket, "state_dir": defaults.state_dir, "runtime_dir": defaults.runtime_dir}
    config = Config(
        daemon=section(DaemonSettings, table(mapping, "daemon"), "daemon", places),
        workers=_workers(mapping, defaults.usable_cpus),
        refill=section(RefillSettings, table(mapping, "refill"), "refill"),
        pools=_pools(table(mapping, "pools")),
        requests=section(RequestSettings, table(mapping, "requests"), "requests"),
        limits=tuple(
            section(LimitSettings, each, f"limits[{number}]")
            for number, each in enumerate(tables(mapping, "limits"))
        ),
        access=tuple(
            section(AccessSettings, each, f"access[{number}]")
            for number, each in enumerate(tables(mapping, "access"))
        ),
        metrics=section(MetricsSettings, table(mapping, "metrics"), "metrics"),
        keyring=section(KeyringSettings, table(mapping, "keyring"), "keyring"),
        ledger=section(LedgerSettings, table(mapping, "ledger"), "ledger"),
        clone_guard=section(CloneGuardSettings, table(mapping, "clone_guard"), "clone_guard"),
        aws=section(AwsSettings, table(mapping, "aws"), "aws"),
    )
    _check_places(config.daemon)
    _check_metrics(config.metrics, config.daemon)
    _check_admin_socket(config.daemon)
    check_access(config.access)
    _check_unlock(config.keyring, config.daemon.state_dir)
    if config.aws.enabled:
        raise ConfigError(
            "aws.enabled = true: this version cannot use keys in AWS. Leave it false: keys are local, "
            "in the keyring (keyring.default_alias)"
        )
    return config


def to_mapping(config: Config) -> dict[str, Any]:
    """The inverse of ``load``: plain values for a TOML file that gives these settings again."""
    mapping: dict[str, Any] = {}
    for each in fields(config):
        value = getattr(config, each.name)
        if isinstance(value, Mapping):
            mapping[each.name] = {name: _plain(row) for name, row in value.items()}
        elif not isinstance(value, tuple):
            mapping[each.name] = _plain(value)
        elif value:  # else it would have to be written above all tables
            mapping[each.name] = [_plain(row) for row in value]
    for pool in mapping["pools"].values():
        for name in ("low_water",) if pool["target"] == "auto" else ("min", "max"):
            del pool[name]
    for rule in mapping.get("access", []):
        for name in ("uids", "gids"):
            if not rule[name]:
                del rule[name]
    for name in ("socket_mode", "admin_socket_mode"):
        mapping["daemon"][name] = f"{getattr(config.daemon, name):04o}"
    return mapping


def _plain(row: Any) -> dict[str, Any]:
    values = {each.name: getattr(row, each.name) for each in fields(row)}
    for name, value in values.items():
        if isinstance(value, Path):
            values[name] = str(value)
        elif isinstance(value, tuple):
            values[name] = list(value)
    return values


def _workers(mapping: Mapping[str, object], usable_cpus: int) -> WorkerSettings:
    asked = section(WorkerSettings, table(mapping, "workers"), "workers")
    makers = asked.makers or max(usable_cpus, asked.shards)
    shards = asked.shards or min(makers, 2)
    if shards > makers:
        raise ConfigError(
            f"workers.shards = {shards}: must be at most workers.makers ({makers}), each shard needs a maker"
        )
    return replace(asked, shards=shards, makers=makers)


def _pools(given: Mapping[str, object]) -> dict[str, PoolSettings]:
    refuse_unknown(given, SPECS, "pools.")
    pools: dict[str, PoolSettings] = {}
    for name, spec in SPECS.items():
        values = table(given, name, "pools.")
        pool = _adaptive_pool(spec, values) if values.get("target") == "auto" else _pool(spec, values)
        if spec.unsupported and pool.target:
            raise ConfigError(
                f"pools.{name}.target = {pool.target}: must be 0, {spec.unsupported}; remove the table"
            )
        if not spec.unsupported:
            pools[name] = pool
    return pools


def _pool(spec: Spec, values: Mapping[str, object]) -> PoolSettings:
    base: dict[str, object] = {"target": spec.target, "low_water": spec.low_water}
    if type(target := values.get("target")) is int:
        base["low_water"] = default_low_water(target)
    for key in ("min", "max"):
        if key in values:
            raise ConfigError(f'pools.{spec.name}.{key}: is for target = "auto" alone; remove it')
    if values.get("low_water") == -1:
        raise ConfigError(f"pools.{spec.name}.low_water = -1: must be a whole number from 0 to target")
    pool = section(PoolSettings, values, f"pools.{spec.name}", base)
    if pool.low_water > int(pool.target):
        raise ConfigError(
            f"pools.{spec.name}.low_water = {pool.low_water}: must be at most target, which is {pool.target}"
        )
    return pool


def _adaptive_pool(spec: Spec, values: Mapping[str, object]) -> PoolSettings:
    """By default from an eighth of what a pool of this spec usually has to sixteen times as much."""
    if values.get("low_water", -1) != -1:
        raise ConfigError(
            f'pools.{spec.name}.low_water: must not be set with target = "auto", of which it is a quarter'
        )
    base = {"low_water": -1, "min": max(spec.target // 8, 1), "max": max(spec.target * 16, 1)}
    pool = section(PoolSettings, values, f"pools.{spec.name}", base)
    if not 1 <= pool.min <= pool.max:
        raise ConfigError(f"pools.{spec.name}.min = {pool.min}: must be from 1 to max, which is {pool.max}")
    return pool


def _check_places(daemon: DaemonSettings) -> None:
    folder = daemon.socket.parent
    if daemon.state_dir in (folder, *folder.parents):
        raise ConfigError(
            f"daemon.socket = {shown(str(daemon.socket))}: must not lie in daemon.state_dir, which only the "
            "daemon may enter"
        )
    if daemon.runtime_dir in (folder, daemon.state_dir):
        raise ConfigError(
            f"daemon.runtime_dir = {shown(str(daemon.runtime_dir))}: must be a folder of its own, "
            "other than the socket's and daemon.state_dir"
        )


def _check_metrics(metrics: MetricsSettings, daemon: DaemonSettings) -> None:
    path = Path(metrics.listen.removeprefix(rules.UNIX_PREFIX))
    if path == daemon.socket:
        raise ConfigError(
            f"metrics.listen = {shown(metrics.listen)}: must be another path than daemon.socket, "
            "which is for clients"
        )
    if daemon.state_dir in path.parents:
        raise ConfigError(
            f"metrics.listen = {shown(metrics.listen)}: must not lie in daemon.state_dir, which only the "
            "daemon may enter"
        )


def _check_admin_socket(daemon: DaemonSettings) -> None:
    if daemon.admin_socket_group and not daemon.admin_socket_mode & 0o020:
        raise ConfigError(
            f"daemon.admin_socket_mode = '{daemon.admin_socket_mode:04o}': must let the group write, as in "
            f'"0660", for daemon.admin_socket_group = {shown(daemon.admin_socket_group)} to mean anything'
        )


def _check_unlock(keyring: KeyringSettings, state_dir: Path) -> None:
    unlock, file = f"keyring.unlock = {shown(keyring.unlock)}", keyring.passphrase_file
    if (keyring.unlock == "passphrase-file") is not bool(file):
        right = '""' if file else "the path of the file that holds the passphrase"
        raise ConfigError(f"keyring.passphrase_file = {shown(file)}: must be {right}, with {unlock}")
    if state_dir in Path(file).parents:
        raise ConfigError(
            f"keyring.passphrase_file = {shown(file)}: must not lie in daemon.state_dir, where who gets the "
            "keyring would get it too"
        )

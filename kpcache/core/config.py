"""Settings: one frozen, checked record made from a mapping (a parsed TOML file), or one clear error.

Every setting has a default; units stand in names. ``config/kpcache.toml`` explains each. What depends
on who runs the daemon, and on which machine, comes in as ``Defaults``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from kpcache.core import config_rules as rules
from kpcache.core.config_tables import refuse_unknown, section, shown, table
from kpcache.core.specs import SPECS
from kpcache.errors import ConfigError


@dataclass(frozen=True)
class Defaults:
    """What depends on who runs the daemon and where. ``usable_cpus``: CPUs that this process may use."""

    socket: str
    state_dir: str
    runtime_dir: str
    usable_cpus: int


@dataclass(frozen=True, kw_only=True)
class DaemonSettings:
    """Where the daemon lives. ``admin.sock`` lies beside ``socket``."""

    socket: Annotated[Path, rules.socket]
    socket_mode: Annotated[int, rules.mode] = 0o660
    socket_group: Annotated[str, rules.text] = ""
    state_dir: Annotated[Path, rules.folder]
    runtime_dir: Annotated[Path, rules.folder]


@dataclass(frozen=True)
class WorkerSettings:
    """``shards`` and ``makers`` are numbers of processes, "auto" already resolved; shards <= makers."""

    shards: Annotated[int, rules.auto_or_integer(1, 64)] = 0
    makers: Annotated[int, rules.auto_or_integer(1, 1024)] = 0
    scheduling: Annotated[str, rules.one_of("idle", "batch", "normal")] = "idle"


@dataclass(frozen=True)
class PoolSettings:
    """``target`` and ``low_water`` in pairs; target 0: no pool, made on demand. ``max_age_s``: only 0."""

    target: Annotated[int, rules.integer(0, 100_000)] = 0
    low_water: Annotated[int, rules.integer(0, 100_000)] = 0
    max_age_s: Annotated[float, rules.seconds(0, 315_360_000)] = 0.0


@dataclass(frozen=True)
class RequestSettings:
    """Limits on requests and connections."""

    on_dry: Annotated[str, rules.one_of("wait", "fail")] = "wait"
    wait_timeout_s: Annotated[float, rules.seconds(0, 3600)] = 5.0
    max_connections: Annotated[int, rules.integer(1, 1_000_000)] = 12_000
    max_connections_per_uid: Annotated[int, rules.integer(1, 1_000_000)] = 4_000
    max_in_flight_per_connection: Annotated[int, rules.integer(1, 65_536)] = 256
    # The least that holds the largest request: a blob of 6144 bytes and a context of 8192.
    max_message_bytes: Annotated[int, rules.integer(16_384, 16_777_216)] = 65_536
    message_timeout_s: Annotated[float, rules.seconds(0.01, 3600)] = 5.0


@dataclass(frozen=True)
class MetricsSettings:
    """``listen`` is ADDRESS:PORT, or empty for no metrics."""

    listen: Annotated[str, rules.listen] = "127.0.0.1:9743"


@dataclass(frozen=True)
class KeyringSettings:
    """``passphrase_file`` is a path with ``unlock`` "passphrase-file", and empty with the others."""

    default_alias: Annotated[str, rules.alias] = "alias/kpcache"
    create: Annotated[Literal["if_empty", "never"], rules.one_of("if_empty", "never")] = "if_empty"
    unlock: Annotated[str, rules.unlock] = "file"
    passphrase_file: Annotated[str, rules.file_or_none] = ""


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
    pools: Mapping[str, PoolSettings]
    requests: RequestSettings
    metrics: MetricsSettings
    keyring: KeyringSettings
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
        pools=_pools(table(mapping, "pools")),
        requests=section(RequestSettings, table(mapping, "requests"), "requests"),
        metrics=section(MetricsSettings, table(mapping, "metrics"), "metrics"),
        keyring=section(KeyringSettings, table(mapping, "keyring"), "keyring"),
        aws=section(AwsSettings, table(mapping, "aws"), "aws"),
    )
    _check_places(config.daemon)
    _check_unlock(config.keyring, config.daemon.state_dir)
    if config.aws.enabled:
        raise ConfigError(
            "aws.enabled = true: this version cannot use keys in AWS. Leave it false: keys are local, "
            "in the keyring (keyring.default_alias)"
        )
    return config


def to_mapping(config: Config) -> dict[str, Any]:
    """The inverse of ``load``: plain values for a TOML file that gives these settings again."""
    tables: dict[str, Any] = {}
    for each in fields(config):
        value = getattr(config, each.name)
        if isinstance(value, Mapping):
            tables[each.name] = {name: _plain(row) for name, row in value.items()}
        else:
            tables[each.name] = _plain(value)
    tables["daemon"]["socket_mode"] = f"{config.daemon.socket_mode:04o}"
    return tables


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
    return WorkerSettings(shards, makers, asked.scheduling)


def _pools(tables: Mapping[str, object]) -> dict[str, PoolSettings]:
    refuse_unknown(tables, SPECS, "pools.")
    pools: dict[str, PoolSettings] = {}
    for name, spec in SPECS.items():
        values = table(tables, name, "pools.")
        base: dict[str, object] = {"target": spec.target, "low_water": spec.low_water}
        if type(target := values.get("target")) is int:
            base["low_water"] = max(target // 4, min(target, 1))
        pool = section(PoolSettings, values, f"pools.{name}", base)
        if pool.low_water > pool.target:
            raise ConfigError(
                f"pools.{name}.low_water = {pool.low_water}: must be at most target, which is {pool.target}"
            )
        if pool.max_age_s:
            raise ConfigError(
                f"pools.{name}.max_age_s = {pool.max_age_s:g}: must be 0, this version does not retire pairs "
                "by age; restart the daemon to burn what it holds"
            )
        if spec.unsupported and pool.target:
            raise ConfigError(
                f"pools.{name}.target = {pool.target}: must be 0, {spec.unsupported}; remove the table"
            )
        if not spec.unsupported:
            pools[name] = pool
    return pools


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

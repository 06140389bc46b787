"""From a mapping (a parsed TOML file) to the settings, checked as a whole, or one clear error; and back."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from kpcache.core import config_rules as rules
from kpcache.core.config_access import AccessSettings, check_access
from kpcache.core.config_tables import refuse_unknown, section, shown, table, tables
from kpcache.core.settings import (
    AwsSettings,
    CloneGuardSettings,
    Config,
    DaemonSettings,
    Defaults,
    KeyringSettings,
    LedgerSettings,
    LimitSettings,
    MetricsSettings,
    PoolSettings,
    RefillSettings,
    RequestSettings,
    WorkerSettings,
)
from kpcache.core.specs import SPECS, Spec
from kpcache.core.targets import default_low_water
from kpcache.errors import ConfigError

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

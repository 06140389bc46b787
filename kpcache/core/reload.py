"""What a reload changes: how two records of settings differ, and which of the differences wait for a restart.

Every setting stands in one of two sets, so that one that is added cannot be forgotten (a test compares them
with ``Config``). What would have to close a socket, move a folder, or replace workers or the keyring under
the clients' feet waits for a restart.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Final, NamedTuple

from kpcache.core.settings import Config

# By table and key; of pools those of any spec. A list of tables is one setting.
AT_ONCE: Final = frozenset(
    {
        "daemon.ready_level", "daemon.log_level",
        "refill.max_cpu_percent", "refill.heed_pressure", "refill.dry_chance", "refill.max_pairs",
        "refill.max_memory_mib",
        "pools.target", "pools.low_water", "pools.min", "pools.max", "pools.max_age_s",
        "requests.on_dry", "requests.wait_timeout_s", "requests.keep_back_percent",
        "requests.max_connections", "requests.max_connections_per_uid",
        "requests.max_in_flight_per_connection", "requests.max_message_bytes", "requests.message_timeout_s",
        "limits", "access",
        "ledger.when_unavailable",
    }
)  # fmt: skip
AT_A_RESTART: Final = frozenset(
    {
        "daemon.socket", "daemon.socket_mode", "daemon.socket_group", "daemon.admin_socket_mode",
        "daemon.admin_socket_group", "daemon.state_dir", "daemon.runtime_dir",
        "workers.shards", "workers.makers", "workers.scheduling", "workers.maker_max_keys",
        "workers.maker_max_age_s",
        "metrics.listen", "metrics.hosts",
        "keyring.default_alias", "keyring.create", "keyring.unlock", "keyring.passphrase_file",
        "clone_guard.vmclock", "clone_guard.kernel_log",
        "aws.enabled", "aws.keys",
    }
)  # fmt: skip


class Setting(NamedTuple):
    """``kind`` is what the sets above have; ``path`` is how the file has it, as in pools.RSA_2048.target."""

    kind: str
    path: str
    value: object


class Difference(NamedTuple):
    """Paths of the settings that differ, in the file's order."""

    at_once: tuple[str, ...]
    at_a_restart: tuple[str, ...]


def settings(config: Config) -> Iterator[Setting]:
    """Every setting."""
    for table in fields(config):
        name, value = table.name, getattr(config, table.name)
        if isinstance(value, Mapping):
            for key, row in value.items():
                yield from _of_table(name, f"{name}.{key}", row)
        elif isinstance(value, tuple):
            yield Setting(name, name, value)
        else:
            yield from _of_table(name, name, value)


def _of_table(kind: str, path: str, row: Any) -> Iterator[Setting]:
    for key in fields(row):
        yield Setting(f"{kind}.{key.name}", f"{path}.{key.name}", getattr(row, key.name))


def compare(in_force: Config, wanted: Config) -> Difference:
    """What must change for ``wanted`` to be in force."""
    differing = [
        new for old, new in zip(settings(in_force), settings(wanted), strict=True) if old.value != new.value
    ]
    at_once = tuple(each.path for each in differing if each.kind in AT_ONCE)
    return Difference(at_once, tuple(each.path for each in differing if each.kind not in AT_ONCE))


def after_reload(in_force: Config, wanted: Config) -> Config:
    """``wanted``, with what waits for a restart left as it is."""
    tables: dict[str, Any] = {}
    for table in fields(in_force):
        old, new = getattr(in_force, table.name), getattr(wanted, table.name)
        if isinstance(old, Mapping):
            tables[table.name] = {key: _merged(table.name, row, new[key]) for key, row in old.items()}
        elif isinstance(old, tuple):
            tables[table.name] = new if table.name in AT_ONCE else old
        else:
            tables[table.name] = _merged(table.name, old, new)
    return Config(**tables)


def _merged(kind: str, old: Any, new: Any) -> Any:
    changed = {key.name: getattr(new, key.name) for key in fields(old) if f"{kind}.{key.name}" in AT_ONCE}
    return replace(old, **changed)

"""Settings: defaults, what is refused and with which words, and the explained file."""

import contextlib
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from kpcache.cli.accounts import with_numbers
from kpcache.cli.config_file import defaults_for, load_file
from kpcache.core.access import Rule
from kpcache.core.config import load, to_mapping
from kpcache.core.settings import Config, Defaults
from kpcache.core.specs import MAKEABLE, SPECS
from kpcache.errors import ConfigError

ROOT = defaults_for({}, 0, usable_cpus=4)
EXPLAINED = Path(__file__).parents[2] / "config" / "kpcache.toml"


def settings(**tables: Any) -> Config:
    return load(tables, defaults=ROOT)


def test_the_explained_file_shows_every_key_with_its_default() -> None:
    shown = tomllib.loads(EXPLAINED.read_text())
    assert load(shown, defaults=ROOT) == load({}, defaults=ROOT)
    effective = to_mapping(load({}, defaults=ROOT))
    assert {name: set(table) for name, table in shown.items()} == {
        name: set(table) for name, table in effective.items()
    }
    assert {name: set(row) for name, row in shown["pools"].items()} == {
        name: set(row) for name, row in effective["pools"].items()
    }


def test_pools_default_to_the_spec_table() -> None:
    pools = settings().pools
    assert tuple(pools) == MAKEABLE
    for name, pool in pools.items():
        assert (pool.target, pool.low_water) == (SPECS[name].target, SPECS[name].low_water)


def test_an_adaptive_pool_has_bounds_around_the_default_and_shows_only_what_applies() -> None:
    pool = settings(pools={"RSA_2048": {"target": "auto"}}).pools["RSA_2048"]
    assert (pool.target, pool.min, pool.max, pool.is_adaptive) == ("auto", 32, 4096, True)
    config = settings(pools={"RSA_2048": {"target": "auto", "min": 7}}, limits=[LIMIT, {**LIMIT, "uid": 7}])
    shown = to_mapping(config)
    assert shown["pools"]["RSA_2048"] == {"target": "auto", "min": 7, "max": 4096, "max_age_s": 0.0}
    assert set(shown["pools"]["RSA_3072"]) == {"target", "low_water", "max_age_s"}
    assert load(shown, defaults=ROOT) == config


def test_naming_one_pool_leaves_the_others() -> None:
    pools = settings(pools={"RSA_2048": {"target": 1000}}).pools
    assert (pools["RSA_2048"].target, pools["RSA_2048"].low_water) == (1000, 250)
    assert pools["RSA_3072"] == settings().pools["RSA_3072"]


@pytest.mark.parametrize(("target", "low_water"), [(0, 0), (1, 1), (3, 1), (4, 1), (10, 2)])
def test_low_water_is_a_quarter_of_a_target_given_alone(target: int, low_water: int) -> None:
    assert settings(pools={"RSA_2048": {"target": target}}).pools["RSA_2048"].low_water == low_water


@pytest.mark.parametrize(
    ("workers", "shards", "makers"),
    [
        ({}, 2, 4),
        ({"makers": 1}, 1, 1),
        ({"makers": "auto", "shards": "auto"}, 2, 4),
        ({"shards": 8}, 8, 8),
        ({"shards": 3, "makers": 9}, 3, 9),
    ],
)
def test_workers_are_resolved(workers: dict[str, object], shards: int, makers: int) -> None:
    resolved = settings(workers=workers).workers
    assert (resolved.shards, resolved.makers) == (shards, makers)


LIMIT = {"rate_per_s": 1, "burst": 1}

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"demon": {}}, "demon: there is no such key; did you mean daemon?"),
    ({"requests": {"wait_timeout": 5}}, "requests.wait_timeout: there is no such key; did you mean"),
    ({"pools": {"RSA_1024": {}}}, "pools.RSA_1024: there is no such key"),
    ({"pools": {"RSA_2048": {"high": 1}}}, "pools.RSA_2048.high: there is no such key"),
    ({"daemon": 3}, "daemon = 3: must be a table, written [daemon]"),
    ({"pools": {"RSA_2048": 5}}, "pools.RSA_2048 = 5: must be a table, written [pools.RSA_2048]"),
    ({"requests": {"wait_timeout_s": True}}, "requests.wait_timeout_s = true: must be a number of seconds"),
    ({"requests": {"wait_timeout_s": float("nan")}}, "must be a number of seconds from 0 to 3600"),
    ({"requests": {"wait_timeout_s": float("inf")}}, "must be a number of seconds from 0 to 3600"),
    ({"workers": {"makers": True}}, "workers.makers = true: must be \"auto\" or a whole number"),
    ({"requests": {"max_connections": 0}}, "requests.max_connections = 0: must be a whole number from 1"),
    ({"requests": {"max_connections": 1.0}}, "requests.max_connections = 1.0: must be a whole number"),
    ({"requests": {"max_message_bytes": 1024}}, "must be a whole number from 16384"),
    ({"requests": {"on_dry": "queue"}}, "requests.on_dry = 'queue': must be one of \"wait\", \"fail\""),
    ({"workers": {"shards": "many"}}, "workers.shards = 'many': must be \"auto\" or a whole number"),
    ({"workers": {"shards": 3, "makers": 2}}, "workers.shards = 3: must be at most workers.makers (2)"),
    ({"pools": {"RSA_2048": {"low_water": 999}}}, "pools.RSA_2048.low_water = 999: must be at most target"),
    ({"pools": {"RSA_2048": {"low_water": -1}}}, "pools.RSA_2048.low_water = -1: must be a whole number fr"),
    ({"pools": {"RSA_2048": {"max_age_s": 9}}}, "pools.RSA_2048.max_age_s = 9: must be a number of seconds"),
    ({"pools": {"RSA_2048": {"max_age_s": False}}}, "pools.RSA_2048.max_age_s = false: must be a number of"),
    ({"pools": {"RSA_2048": {"target": "large"}}}, "pools.RSA_2048.target = 'large': must be \"auto\" or a"),
    ({"pools": {"RSA_2048": {"target": 9, "max": 9}}}, "pools.RSA_2048.max: is for target = \"auto\" alone"),
    ({"pools": {"RSA_2048": {"target": "auto", "low_water": 1}}}, "low_water: must not be set with target"),
    ({"pools": {"RSA_2048": {"target": "auto", "min": 5, "max": 4}}}, "min = 5: must be from 1 to max, whi"),
    ({"pools": {"RSA_2048": {"target": "auto", "min": 0}}}, "pools.RSA_2048.min = 0: must be from 1 to max"),
    ({"pools": {"SM2": {"target": "auto"}}}, "pools.SM2.target = auto: must be 0"),
    ({"refill": {"max_cpu_percent": 0}}, "refill.max_cpu_percent = 0: must be a number from 1 to 100"),
    ({"refill": {"dry_chance": float("nan")}}, "refill.dry_chance = nan: must be a number from 1e-09 to 0.5"),
    ({"requests": {"keep_back_percent": 100}}, "requests.keep_back_percent = 100: must be a number from 0"),
    ({"daemon": {"ready_level": "0%"}}, "daemon.ready_level = '0%': must be \"low_water\", \"full\", or a"),
    ({"limits": {"uid": 5}}, "must be tables, each written [[limits]]"),
    ({"limits": [{"rate_per_s": 1}]}, "limits[0].burst: must be given"),
    ({"limits": [LIMIT, {**LIMIT, "uid": "root"}]}, "limits[1].uid = 'root': must be a user's number"),
    ({"limits": [{**LIMIT, "uid": 65534}]}, "limits[0].uid = 65534: must be a user's number (see id -u NAM"),
    ({"limits": [{**LIMIT, "spec": "SM2"}]}, "limits[0].spec = 'SM2': must be \"*\" for each spec, or one"),
    ({"limits": [{**LIMIT, "rate_per_s": 0}]}, "limits[0].rate_per_s = 0: must be a number from 1e-06"),
    ({"pools": {"SM2": {"target": 1}}}, "pools.SM2.target = 1: must be 0"),
    ({"daemon": {"socket_mode": 660}}, 'daemon.socket_mode = 660: must be octal permissions in quotes'),
    ({"daemon": {"socket_mode": "0998"}}, "must be octal permissions"),
    ({"daemon": {"socket": "kpcache.sock"}}, "must be an absolute path"),
    ({"daemon": {"socket": "/run/../etc/s"}}, "must be an absolute path without .."),
    ({"daemon": {"socket": "/run/admin.sock"}}, "not admin.sock"),
    ({"daemon": {"socket": "/" + "s" * 107}}, "at most 107 bytes"),
    ({"daemon": {"socket": "/" + "d" * 100 + "/s"}}, "at most 107 bytes"),
    ({"daemon": {"socket": "/var/lib/kpcache/s"}}, "must not lie in daemon.state_dir"),
    ({"daemon": {"runtime_dir": "/var/lib/kpcache"}}, "must be a folder of its own"),
    ({"daemon": {"runtime_dir": "/run/kpcache"}}, "must be a folder of its own"),
    ({"daemon": {"socket_group": "a\nb"}}, "printable"),
    ({"daemon": {"admin_socket_mode": "0666"}}, "daemon.admin_socket_mode = '0666': must be octal permiss"),
    ({"daemon": {"admin_socket_mode": "0602"}}, "that let no others write"),
    ({"daemon": {"admin_socket_mode": 600}}, "that let no others write"),
    ({"daemon": {"admin_socket_group": "ops"}}, "daemon.admin_socket_mode = '0600': must let the group w"),
    ({"access": {"uids": [1]}}, "access = {'uids': [1]}: must be tables, each written [[access]]"),
    ({"access": [{"uid": [1]}]}, "access[0].uid: there is no such key; did you mean uids?"),
    ({"access": [{}, {"uids": 1000}]}, "access[1].uids = 1000: must be a list of users, each a number"),
    ({"access": [{"uids": []}]}, "access[0].uids = []: must be a list of users"),
    ({"access": [{"uids": [True]}]}, "access[0].uids = [True]: must be a list of users"),
    ({"access": [{"uids": [-1]}]}, "access[0].uids = [-1]: must be a list of users"),
    ({"access": [{"uids": [2**32 - 1]}]}, "must be a list of users"),
    ({"access": [{"uids": [65534]}]}, "none of them 65534"),
    ({"access": [{"gids": [65534]}]}, "access[0].gids = [65534]: must be a list of groups"),
    ({"access": [{"uids": ["1000"]}]}, "each a number (without quotes) or a name"),
    ({"access": [{"gids": ["a:b"]}]}, "must be a list of groups"),
    ({"access": [{"gids": ["a\n"]}]}, "must be a list of groups"),
    ({"access": [{"uids": [1] * 1001}]}, "must be a list of users"),
    ({"access": [{"operations": "Encrypt"}]}, "access[0].operations = 'Encrypt': must be \"*\" for each, or"),
    ({"access": [{"operations": ["encrypt"]}]}, "must be \"*\" for each, or a list of at least one of Gener"),
    ({"access": [{"operations": ["kpcache.Quiesce"]}]}, "access[0].operations = ['kpcache.Quiesce']: must b"),
    ({"access": [{"operations": []}]}, "must be \"*\" for each, or a list of at least one of"),
    ({"access": [{"operations": [[]]}]}, "must be \"*\" for each, or a list of at least one of"),
    ({"access": [{"specs": ["SM2"]}]}, "access[0].specs = ['SM2']: must be \"*\" for each, or a list of at "),
    ({"access": [{"specs": ["RSA_2048"], "operations": ["Decrypt"]}]}, "access[0].specs = ['RSA_2048']: mus"),
    ({"access": [{"key_ids": ["kpcache"]}]}, "access[0].key_ids = ['kpcache']: must be \"*\" for every key,"),
    ({"access": [{"key_ids": ["alias/aws/x"]}]}, "must be \"*\" for every key, or a list of keys of the key"),
    ({"access": [{"key_ids": ["arn:aws:kms:eu-west-1:111122223333:alias/x"]}]}, "which begins with arn:aws:"),
    ({"access": [{"key_ids": "alias/x"}]}, "must be \"*\" for every key"),
    ({"access": [{"key_ids": []}]}, "must be \"*\" for every key"),
    ({"access": [{"uids": [n]} for n in range(1001)]}, "access: 1001 rules; there may be 1000"),
    ({"metrics": {"listen": "localhost:9743"}}, "must be an address and a port"),
    ({"metrics": {"listen": "127.0.0.1:0"}}, "must be an address and a port"),
    ({"metrics": {"listen": "127.0.0.1:65536"}}, "must be an address and a port"),
    ({"metrics": {"listen": "::1:9743"}}, "must be an address and a port"),
    ({"metrics": {"listen": 9743}}, "must be an address and a port"),
    ({"metrics": {"listen": "unix:metrics.sock"}}, "must be an absolute path"),
    ({"metrics": {"listen": "unix:/" + "x" * 200}}, "must be a path of at most 107 bytes"),
    ({"metrics": {"listen": "unix:/run/kpcache/admin.sock"}}, "that is not admin.sock"),
    ({"metrics": {"listen": "unix:/run/kpcache/kpcache.sock"}}, "must be another path than daemon.socket"),
    ({"metrics": {"listen": "unix:/var/lib/kpcache/metrics.sock"}}, "must not lie in daemon.state_dir"),
    ({"metrics": {"hosts": ["a b"]}}, "must be a list of host names or addresses without a port"),
    ({"metrics": {"hosts": ["metrics.example.com:9743"]}}, "must be a list of host names or addresses"),
    ({"metrics": {"hosts": ["[::1]"]}}, "must be a list of host names or addresses"),
    ({"metrics": {"hosts": "metrics.example.com"}}, "must be a list of"),
    ({"keyring": {"default_alias": "kpcache"}}, 'must be "alias/" and a name'),
    ({"keyring": {"default_alias": "alias/aws/kms"}}, 'must be "alias/" and a name'),
    ({"keyring": {"default_alias": "alias/a\n"}}, 'must be "alias/" and a name'),
    ({"keyring": {"create": True}}, "keyring.create = true: must be one of"),
    ({"keyring": {"unlock": "tpm"}}, 'must be one of "file", "credential", "passphrase-file", "aws-kms:KEY"'),
    ({"keyring": {"unlock": "aws-kms:"}}, "must be one of"),
    ({"keyring": {"unlock": "aws-kms:a\n"}}, "must be one of"),
    (
        {"keyring": {"unlock": "aws-kms:alias/seal", "passphrase_file": "/p"}},
        "passphrase_file = '/p': must be \"\", with keyring.unlock = 'aws-kms:alias/seal'",
    ),
    ({"keyring": {"unlock": "passphrase-file"}}, "must be the path of the file that holds the passphrase"),
    ({"keyring": {"passphrase_file": "/run/secret"}}, "must be \"\", with keyring.unlock = 'file'"),
    ({"keyring": {"passphrase_file": "secret"}}, 'must be an absolute path without .., or "" for none'),
    (
        {"keyring": {"unlock": "passphrase-file", "passphrase_file": "/var/lib/kpcache/secret"}},
        "must not lie in daemon.state_dir",
    ),
    ({"aws": {"enabled": True}}, "this version cannot use keys in AWS"),
    ({"aws": {"keys": "*"}}, "aws.keys = '*': must be a list of strings"),
    ({"prewrapped": [{"spec": "RSA_2048"}]}, "this version has no pre-wrapped pools"),
]  # fmt: skip


@pytest.mark.parametrize(("tables", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_is_wrong_is_refused_with_the_place_and_the_cure(tables: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tables, defaults=ROOT)
    assert words in caught.value.message
    assert caught.value.message.isprintable()
    assert caught.value.exit_code == 2


def test_a_long_or_hostile_value_is_shown_cut_and_escaped() -> None:
    with pytest.raises(ConfigError) as caught:
        settings(requests={"on_dry": "\x1b[2J" + "x" * 10_000})
    assert len(caught.value.message) < 250
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize("listen", ["", "[::1]:9743", "0.0.0.0:80", "unix:/run/kpcache/metrics.sock"])
def test_addresses_that_fit(listen: str) -> None:
    assert settings(metrics={"listen": listen}).metrics.listen == listen


def test_more_hosts_are_known_in_lower_case() -> None:
    config = settings(metrics={"hosts": ["Metrics.Example.com", "192.0.2.7", "2001:DB8:0::7"]})
    assert config.metrics.hosts == ("metrics.example.com", "192.0.2.7", "2001:db8::7")
    assert load(to_mapping(config), defaults=ROOT) == config


KEY_NAMES = (
    *("alias/a/b_c-1", "00000000-0000-4000-8000-000000000000", "arn:aws:kms:local:000000000000:alias/x"),
    "arn:aws:kms:local:000000000000:key/00000000-0000-4000-8000-000000000000",
)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "daemon": st.fixed_dictionaries(
        {},
        optional={
            "socket": st.sampled_from(["/run/a/b.sock", "/s"]),
            "socket_mode": st.sampled_from(["0600", "660", "0777"]),
            "socket_group": st.sampled_from(["", "apps"]),
            "admin_socket_mode": st.sampled_from(["0600", "620", "0770"]),
            "state_dir": st.sampled_from(["/srv/k", "/var/lib/x y"]),
        },
    ),
    "workers": st.fixed_dictionaries(
        {}, optional={"makers": st.integers(8, 1024), "shards": st.one_of(st.just("auto"), st.integers(1, 8))}
    ),
    "pools": st.dictionaries(
        st.sampled_from(MAKEABLE),
        st.fixed_dictionaries({"target": st.integers(0, 100_000)}, optional={"max_age_s": st.just(0)}),
    ),
    "access": st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "uids": st.lists(st.sampled_from(["alice", "DOM\\a user", 0, 65533, 2**32 - 2]), min_size=1),
                "gids": st.lists(st.sampled_from(["apps", "ünï", 7]), min_size=1),
                "operations": st.sampled_from(
                    ["*", ["GenerateDataKeyPair"], ["Decrypt", "GenerateDataKeyPair"]]
                ),
                "specs": st.sampled_from(["*", list(MAKEABLE)]),
                "key_ids": st.sampled_from(["*", list(KEY_NAMES)]),
            },
        ),
        max_size=3,
    ),
    "requests": st.fixed_dictionaries({}, optional={"wait_timeout_s": st.floats(0, 3600)}),
    "keyring": st.one_of(
        st.fixed_dictionaries({}, optional={"create": st.sampled_from(["if_empty", "never"])}),
        st.just({"unlock": "credential"}),
        st.just({"unlock": "aws-kms:arn:aws:kms:eu-central-1:111122223333:alias/seal"}),
        st.just({"unlock": "passphrase-file", "passphrase_file": "/run/secrets/kpcache"}),
    ),
}


def test_a_rule_prints_what_it_says_and_no_more() -> None:
    daemon = {"admin_socket_mode": "660", "admin_socket_group": "ops"}
    shown = to_mapping(settings(access=[{"gids": ["apps"]}, {}], daemon=daemon))
    every = {"operations": "*", "specs": "*", "key_ids": "*"}
    assert shown["access"] == [{"gids": ["apps"], **every}, every]
    assert shown["daemon"].items() >= {"admin_socket_mode": "0660", "admin_socket_group": "ops"}.items()


@given(st.fixed_dictionaries({}, optional=_VALUES), st.integers(1, 256))
def test_printed_settings_load_as_the_same_settings(tables: dict[str, Any], cpus: int) -> None:
    defaults = Defaults("/run/k/k.sock", "/var/lib/k", "/run/k/reserve", cpus)
    config = load(tables, defaults=defaults)
    printed = tomllib.loads(tomli_w.dumps(to_mapping(config)))
    assert load(printed, defaults=ROOT) == config


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.text() | st.integers(), st.lists), max_size=3))
def test_nothing_makes_it_fail_otherwise(tables: dict[str, Any]) -> None:
    for mapping in (tables, {"daemon": tables}, {"pools": tables}, {"pools": {"RSA_2048": tables}}):
        with contextlib.suppress(ConfigError):
            load(mapping, defaults=ROOT)


# Defaults for who runs it, and files


def test_root_has_the_systems_folders() -> None:
    assert Defaults("/run/kpcache/kpcache.sock", "/var/lib/kpcache", "/run/kpcache/reserve", 4) == ROOT


def test_others_have_their_xdg_folders() -> None:
    environ = {"XDG_RUNTIME_DIR": "/run/user/7", "XDG_STATE_HOME": "/home/u/state"}
    assert defaults_for(environ, 7, usable_cpus=1) == Defaults(
        "/run/user/7/kpcache/kpcache.sock", "/home/u/state/kpcache/state", "/run/user/7/kpcache/reserve", 1
    )


def test_without_a_runtime_folder_the_defaults_still_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    defaults = defaults_for({}, 7, usable_cpus=1)
    assert defaults.socket == "/home/u/.local/state/kpcache/kpcache.sock"
    assert load({}, defaults=defaults).daemon.socket == Path(defaults.socket)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[daemon", "not TOML"),
        (b"\xff\xfe", "not TOML"),
        (b"[daemon]\n[daemon]", "not TOML"),
        (b"#" * 1_100_000, "larger than any file of settings"),
        (b"[daemon]\nsocket = 3", "daemon.socket = 3: must be an absolute path"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "k.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_file(str(file))
    assert caught.value.message.startswith(str(file))
    assert words in caught.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_file(str(tmp_path / "none"))


def test_the_argument_goes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "k.toml"
    file.write_text('[daemon]\nsocket = "/in/file"\nsocket_mode = "0600"\n')
    daemon = load_file(str(file), socket="/given/s").daemon
    assert (daemon.socket, daemon.socket_mode) == (Path("/given/s"), 0o600)


# Names of users and groups


def numbered(*rules: dict[str, Any]) -> tuple[Rule, ...]:
    return tuple(each.rule for each in with_numbers(settings(access=list(rules)), "/etc/k.toml").access)


def test_names_of_users_and_groups_become_numbers() -> None:
    (rule,) = numbered({"uids": ["root", 7], "gids": ["root"], "specs": ["RSA_2048"]})
    assert (rule.uids, rule.gids, rule.specs) == (frozenset({0, 7}), frozenset({0}), frozenset({"RSA_2048"}))
    assert numbered({}) == (Rule(),)


def test_a_name_that_never_became_a_number_is_nobodys() -> None:
    (each,) = settings(access=[{"uids": ["root"]}]).access
    assert each.rule == Rule(uids=frozenset())


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            {"uids": ["no-such-user"]},
            "access[1].uids: there is no user 'no-such-user' on this machine: correct",
        ),
        (
            {"gids": ["no-such-group"]},
            "access[1].gids: there is no group 'no-such-group' on this machine: cor",
        ),
        ({"uids": ["nobody"]}, "access[1].uids: 'nobody' has the number 65534, which stands for"),
        ({"gids": ["nogroup"]}, "access[1].gids: 'nogroup' has the number 65534, which stands for"),
    ],
)
def test_a_user_or_group_that_is_not_there_is_refused_with_the_cure(rule: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        numbered({}, rule)
    assert caught.value.message.startswith(f"/etc/k.toml: {words}")

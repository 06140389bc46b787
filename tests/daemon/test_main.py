"""How the daemon spreads makers, counts its descriptors, and keeps its log free of what others wrote."""

import logging
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.core.config import load
from kpcache.core.settings import Config, Defaults
from kpcache.daemon.descriptors import limits_of
from kpcache.daemon.main import _socket_paths
from kpcache.daemon.notices import log_defect
from kpcache.daemon.parts import _placement

DEFAULTS = Defaults(socket="/run/x/kpcache.sock", state_dir="/s", runtime_dir="/r", usable_cpus=2)


def config(**tables: object) -> Config:
    return load(tables, defaults=DEFAULTS)


@given(st.integers(1, 64), st.integers(0, 100))
def test_makers_are_spread_evenly_and_every_shard_has_one(shards: int, more: int) -> None:
    spread = _placement(shards, shards + more)
    assert len(spread) == shards
    assert sum(spread) == shards + more
    assert max(spread) - min(spread) <= 1
    assert min(spread) >= 1


def test_administration_has_a_socket_of_its_own_for_its_owner_alone() -> None:
    client, admin = _socket_paths(config())
    assert [str(client[0]), oct(client[1]), client[2]] == ["/run/x/kpcache.sock", "0o660", ""]
    assert [str(admin[0]), oct(admin[1]), admin[2]] == ["/run/x/admin.sock", "0o600", ""]


def test_the_socket_for_administration_has_its_own_mode_and_group() -> None:
    daemon = {"socket_group": "apps", "admin_socket_mode": "0660", "admin_socket_group": "ops"}
    client, admin = _socket_paths(config(daemon=daemon))
    assert client[1:] == (0o660, "apps", "daemon.socket_group")
    assert admin[1:] == (0o660, "ops", "daemon.admin_socket_group")


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "raised_to"),
    [
        (1024, 20000, 12000, 12256),
        (1024, resource.RLIM_INFINITY, 12000, 12256),
        (20000, 20000, 12000, None),
        (1024, 4096, 3840, 4096),  # fewer connections than asked for, rather than a daemon out of descriptors
        (64, 64, 1, None),
    ],
)
def test_there_are_as_many_connections_as_descriptors(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    soft: int,
    hard: int,
    connections: int,
    raised_to: int | None,
) -> None:
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: calls.append(limits))
    assert limits_of(config().requests).max_connections == connections
    assert calls == ([] if raised_to is None else [(raised_to, hard)])
    assert ("LimitNOFILE" in caplog.text) == (connections < 12000)


def test_the_settings_of_requests_become_limits() -> None:
    limits = limits_of(
        config(requests={"on_dry": "fail", "wait_timeout_s": 1.5, "max_message_bytes": 20000}).requests
    )
    assert (limits.wait_when_dry, limits.wait_timeout_s, limits.max_message_bytes) == (False, 1.5, 20000)


def test_a_defect_is_logged_by_type_and_place_without_its_message(caplog: pytest.LogCaptureFixture) -> None:
    try:
        int("a SECRET that it tripped over")
    except ValueError as error:
        log_defect("testing", error)
    assert "defect in testing: ValueError at test_a_defect" in caplog.text
    assert "SECRET" not in caplog.text
    assert caplog.records[0].levelno == logging.ERROR
    assert caplog.records[0].exc_info is None

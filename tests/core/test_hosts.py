"""Which Host headers are ours, and that no name of a stranger is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.core.hosts import is_ours

LOOPBACK = "127.0.0.1"
NAMES = ("metrics.example.com", "192.0.2.7", "2001:db8::7")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", LOOPBACK),
        ("127.0.0.1:9743", LOOPBACK),
        ("127.0.0.1:1", LOOPBACK),  # a port that was forwarded
        ("127.1.2.3", LOOPBACK),
        ("localhost", LOOPBACK),
        ("LocalHost:9743", LOOPBACK),
        ("[::1]:9743", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("198.51.100.4:80", "198.51.100.4"),
        ("127.0.0.1", "198.51.100.4"),
        ("[2001:db8::4]", "2001:db8::4"),
        ("198.51.100.4", "::ffff:198.51.100.4"),  # a listener for both kinds of addresses
        ("[fe80::1]:9743", "fe80::1%eth0"),
        ("Metrics.Example.com:9743", LOOPBACK),
        ("192.0.2.7:9743", LOOPBACK),
        ("[2001:db8:0::7]:9743", LOOPBACK),
        ("", ""),
        ("localhost", ""),
        ("metrics.example.com", ""),
    ],
)
def test_its_addresses_localhost_and_what_was_named_are_ours(host: str, address: str) -> None:
    assert is_ours(host, address, NAMES)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("", LOOPBACK),
        ("evil.example", LOOPBACK),
        ("evil.example", ""),
        ("127.0.0.1.evil.example", LOOPBACK),
        ("localhost.evil.example:9743", LOOPBACK),
        ("evil.example:127.0.0.1", LOOPBACK),
        ("localhost@evil.example", LOOPBACK),
        ("evil.example@localhost", LOOPBACK),
        ("localhost:9743:1", LOOPBACK),
        ("localhost:123456", LOOPBACK),
        ("localhost\n", LOOPBACK),
        ("127.0.0.1, evil.example", LOOPBACK),
        ("198.51.100.5", "198.51.100.4"),
        ("0.0.0.0", LOOPBACK),
        ("2130706433", LOOPBACK),  # 127.0.0.1 as one number, which browsers understand
        ("[::1", "::1"),
        ("::1", "::1"),
        ("[127.0.0.1]", LOOPBACK),
        ("[fe80::1%eth0]", "fe80::1%eth0"),
        ("127.0.0.1", ""),  # no page connects to a Unix socket, but nobody asks it by an address either
    ],
)
def test_all_else_is_not(host: str, address: str) -> None:
    assert not is_ours(host, address, NAMES)


@given(st.text(max_size=40), st.sampled_from([LOOPBACK, "::1", "198.51.100.4", ""]))
def test_whatever_comes_is_judged_without_a_fault(host: str, address: str) -> None:
    is_ours(host, address, NAMES)


@given(st.from_regex(r"[a-z0-9-]{1,20}(\.[a-z0-9-]{1,20}){0,3}\.[a-z]{2,10}", fullmatch=True))
def test_no_name_under_a_public_suffix_is_ours_but_one_that_was_named(name: str) -> None:
    assert not is_ours(name, LOOPBACK, ())
    assert is_ours(name, LOOPBACK, (name,))

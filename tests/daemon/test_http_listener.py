"""Where the metrics are served, and what happens where they cannot be."""

import socket
import stat
from pathlib import Path

import pytest

from kpcache.daemon.http_listener import http_listener


def free_port(family: socket.AddressFamily = socket.AF_INET, address: str = "127.0.0.1") -> int:
    with socket.socket(family) as sock:
        sock.bind((address, 0))
        return int(sock.getsockname()[1])


def connects(address: tuple[str, int] | str, family: socket.AddressFamily = socket.AF_INET) -> bool:
    with socket.socket(family) as sock:
        try:
            sock.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        return True


def test_a_port_is_listened_on_and_given_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "kpcache")
    port = free_port()
    with http_listener(f"127.0.0.1:{port}") as sock:
        assert sock is not None
        assert sock.gettimeout() == 0
        with socket.create_connection(("127.0.0.1", port)) as client:
            served, _ = sock.accept()
            served.close()  # closed by us first, it stays with the kernel for a minute (TIME_WAIT)
            assert client.recv(1) == b""
        assert f"http://127.0.0.1:{port}/metrics" in caplog.text
    assert not connects(("127.0.0.1", port))
    with http_listener(f"127.0.0.1:{port}") as sock:  # what the connection above left does not block it
        assert sock is not None


def test_an_ipv6_address_is_that_alone() -> None:
    port = free_port(socket.AF_INET6, "::1")
    with http_listener(f"[::]:{port}") as sock:
        assert sock is not None
        assert connects(("::1", port), socket.AF_INET6)
        assert not connects(("127.0.0.1", port))


def test_a_unix_socket_is_for_its_owner_and_group_and_goes_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with http_listener(f"unix:{path}") as sock:
        assert sock is not None
        assert sock.gettimeout() == 0
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert connects(str(path), socket.AF_UNIX)
    assert list(tmp_path.iterdir()) == []


def test_none_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    with http_listener("") as sock:
        assert sock is None
    assert not caplog.text


def test_a_port_that_is_taken_is_a_warning_that_names_the_cure(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with http_listener(taken) as sock:
            assert sock is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    told = record.getMessage()
    assert f"no metrics are served: metrics.listen: cannot listen on {taken} (Address already in use)" in told
    assert "a port that is free" in told


def test_an_address_of_another_machine_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with http_listener("192.0.2.1:9743") as sock:  # RFC 5737: nobody has it
        assert sock is None
    assert "an address of this machine" in caplog.text


def test_a_unix_path_that_is_taken_or_unsafe_is_a_warning_and_stays_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.sock"
    with http_listener(f"unix:{path}") as other:
        assert other is not None
        with http_listener(f"unix:{path}") as sock:
            assert sock is None
        assert connects(str(path), socket.AF_UNIX)
    assert "metrics.listen: cannot listen on" in caplog.text
    caplog.clear()
    tmp_path.chmod(0o777)
    with http_listener(f"unix:{path}") as sock:
        assert sock is None
    assert "metrics.listen: others could put their own socket" in caplog.text
    assert "daemon.socket" not in caplog.text

"""Ports of this machine for servers of tests."""

import socket


def free_port() -> int:
    """One of loopback that nobody listens on at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])

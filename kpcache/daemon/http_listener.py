"""The socket of [metrics] listen."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kpcache.core.config_rules import UNIX_PREFIX
from kpcache.daemon.notices import log
from kpcache.daemon.state import close_listener, listen
from kpcache.errors import ConfigError

# For the daemon's user and group: who may read the metrics need not be who may have keys.
_MODE: Final = 0o660
_BACKLOG: Final = 128


@contextmanager
def http_listener(setting: str) -> Iterator[socket.socket | None]:
    """A non-blocking listening socket at ``setting``, [metrics] listen; closed at the end. None where that is
    empty, or cannot be had: then a warning names the cure, for applications need their pairs all the same."""
    path = Path(setting.removeprefix(UNIX_PREFIX)) if setting.startswith(UNIX_PREFIX) else None
    sock = None
    try:
        if path is not None:
            sock = listen(path, _MODE, "", setting="metrics.listen")
            log.info("metrics at http://localhost/metrics, by way of %s", path)
        elif setting:
            sock = _listen_tcp(setting)
            log.info("metrics at http://%s/metrics", setting)
    except ConfigError as error:
        log.warning("no metrics are served: %s", error.message)
    try:
        yield sock
    finally:
        if sock is not None:
            if path is not None:
                close_listener(sock, path)
            sock.close()


def _listen_tcp(setting: str) -> socket.socket:
    """Raises ``ConfigError``."""
    host, _, port = setting.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = None
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        # Else the connections that the last life closed block it for a minute.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # [::] means the same on any machine
        sock.bind((host, int(port)))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise ConfigError(
            f"metrics.listen: cannot listen on {setting} ({error.strerror or error}); set it to an address "
            'of this machine and a port that is free, or to "" for none'
        ) from error
    return sock

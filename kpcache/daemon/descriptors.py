"""How many connections there can be: each takes a file descriptor."""

import resource
from dataclasses import fields, replace
from typing import Final

from kpcache.core.limits import Limits
from kpcache.core.settings import RequestSettings
from kpcache.daemon.notices import log

# Those that are not clients' connections: listeners, workers' pipes, the loop's own, and the connections of
# administrators and of HTTP, which have caps of their own.
_OWN_FDS: Final = 256


def limits_of(requests: RequestSettings) -> Limits:
    """The settings of [requests], with as many connections as there are file descriptors for; the process's
    soft limit is raised for them."""
    limits = Limits(
        max_connections=requests.max_connections,
        max_connections_per_uid=requests.max_connections_per_uid,
        max_in_flight_per_connection=requests.max_in_flight_per_connection,
        max_message_bytes=requests.max_message_bytes,
        message_timeout_s=requests.message_timeout_s,
        wait_timeout_s=requests.wait_timeout_s,
        wait_when_dry=requests.on_dry == "wait",
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = requests.max_connections + _OWN_FDS
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed >= wanted:
        return limits
    log.warning(
        "only %d file descriptors are allowed, so %d connections, not %d; raise LimitNOFILE to %d",
        allowed, allowed - _OWN_FDS, requests.max_connections, wanted,
    )  # fmt: skip
    return replace(limits, max_connections=max(1, allowed - _OWN_FDS))


def take_over(limits: Limits, other: Limits) -> None:
    """Have the bounds of ``other`` in force wherever ``limits`` is gone by."""
    for each in fields(limits):
        setattr(limits, each.name, getattr(other, each.name))

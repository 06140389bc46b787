"""Whether the Host of an HTTP request names this server, or a name that somebody made resolve to it.

A web page can have its visitor's browser ask any address that its own name resolves to, 127.0.0.1 included,
and read the answer as its own (DNS rebinding). The browser then sends the page's name as Host: an address,
or a name that the operator gave, is what no such page has.
"""

import ipaddress
import re
from collections.abc import Collection
from typing import Final

_HOST: Final = re.compile(r"(?:\[(?P<v6>[0-9a-f.]*:[0-9a-f:.]*)\]|(?P<name>[a-z0-9._-]+))(?::[0-9]{0,5})?\Z")


def is_ours(host: str, address: str, names: Collection[str]) -> bool:
    """``host`` is the header's value, empty where there is none; its port, if any, is not looked at.
    ``address`` is the numeric one that the connection came in at, empty for a Unix socket, which no page can
    have a browser connect to by name. ``names``: more hosts that are meant, as ``config_rules.hosts`` gives
    them.
    """
    if not host:
        return not address
    found = _HOST.match(host.lower())
    if found is None:
        return False
    name = found["v6"] or found["name"]
    if name == "localhost" or name in names:
        return True
    try:
        asked = ipaddress.ip_address(name)
    except ValueError:
        return False
    if str(asked) in names:
        return True
    return bool(address) and (asked.is_loopback or asked == _plain(address))


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Without an interface (fe80::1%eth0), and IPv4 as such where one listener takes both kinds."""
    plain = ipaddress.ip_address(address.partition("%")[0])
    return (plain.ipv4_mapped if plain.version == 6 else None) or plain

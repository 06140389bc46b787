"""What one client may ask of the daemon: every bound on a connection and on a message, in one record."""

from dataclasses import dataclass

# Deepest legal nesting: message array, params array, input map, a list (Tags), and one map inside it.
MAX_DEPTH = 5
# Items in an array, or entries in a map. The largest legal one is an encryption context, whose own,
# lower bound is checked with the input so that the caller is told which member was too large.
MAX_ITEMS = 256
# A msgid is a 32-bit unsigned number: github.com/msgpack-rpc/msgpack-rpc/blob/master/spec.md.
MAX_MSGID = 2**32 - 1
MAX_METHOD_CHARS = 64
PROTOCOL_VERSION = 1


@dataclass(slots=True)
class Limits:
    """Bounds that the configuration sets ([requests] in the config file); bytes, and seconds.

    One record for all who go by it, read at each use: so that a change is in force everywhere at once, for
    connections that are open too.
    """

    max_connections: int = 12000
    max_connections_per_uid: int = 4000
    max_in_flight_per_connection: int = 256
    max_message_bytes: int = 65536
    message_timeout_s: float = 5.0
    wait_timeout_s: float = 5.0
    wait_when_dry: bool = True

"""kpcache: fresh, never-used key pairs, made ahead of need.

How the parts meet (arrows of import point down this list only):

- ``cli/``      the ``kpcache`` command: parses arguments, prints for people and programs.
- ``daemon/``   the trio program that serves: ``main`` reads as its life (start, ready, serve, drain,
                stop), ``parts`` puts the others together; ``server`` moves bytes, ``dispatcher``
                answers requests, ``access`` knows who may ask, ``administrator`` answers those that
                change the keyring, ``stock`` gives pairs out and keeps the ready sets, ``floor`` has
                them made as ``planner`` sees the need, ``ledger`` records what was made before anybody
                may hold it, ``alarm`` stops all when a pair comes twice, ``reserve`` brings back what
                waited out a restart, ``supervisor`` keeps the worker processes, ``reload`` has other
                settings in force meanwhile, ``metrics`` counts and measures, ``http`` answers scrapers
                and probes.
- ``worker/``   the programs that the daemon starts, plain and blocking: ``shard`` holds pairs and
                answers draws, ``maker`` makes and checks them in the idle scheduling class,
                ``aws_unlock`` asks AWS KMS for the keyring's key at a start.
- ``keyring/``  the embedded KMS: local keys, and the blobs that they wrap.
- ``client/``   what applications import: the blocking client and key loading.
- ``simulator/`` pools under a virtual clock: the same rules, hours of a load in seconds, and what they need.
- ``core/``     the rules, without I/O, clock or randomness: specs, the wire protocol, the life of a
                pair, refill and its manners, demand and targets, turns and shares among users
                (``desk``), who may ask (``access``), restart, limits, the blob format.
- ``errors``    one tree of errors for all of them; it says who must act.

Read next: ``daemon/main.py`` (a life of the program), then ``core/pool.py`` (the life of a pair).

Importing this package loads nothing else: the worker programs live in it and must stay small, and the
client names below are loaded at first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kpcache.client import Client, load_private_key

__version__ = "0.1.0"
__all__ = ["Client", "__version__", "load_private_key"]


def __getattr__(name: str) -> Any:
    """Load the client names at first use (PEP 562)."""
    if name in ("Client", "load_private_key"):
        import kpcache.client

        return getattr(kpcache.client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What applications import: the blocking ``Client``, and the quick way to load a private key.

- ``client``      ``Client``: one method an operation, the retry across a daemon's restart.
- ``pool``        connections shared by threads, dropped in a forked child.
- ``connection``  one socket with one request in flight: bytes out, one answer in.
- ``address``     where the socket is, and whether the server behind it may be believed.
- ``members``     the shapes of requests and answers, for type checkers.
- ``keys``        ``load_private_key``.

Importing this loads neither trio nor boto3 nor cryptography.
"""

from kpcache.client.client import Client
from kpcache.client.keys import load_private_key

__all__ = ["Client", "load_private_key"]

"""What a hit is compared with: servers of the bench's own, and making the pair on the spot."""

import shutil
import subprocess
import time
from collections.abc import Callable

from bench.daemon import CONTEXT, KEY_ID, BenchError
from bench.nest import Nest
from kpcache import Client
from kpcache.worker.generate import generate

_START_TIMEOUT_S = 10.0
_LIST = "pairs"


class Echo:
    """The echo server, asked through kpcache's own client: what differs from a hit is the server alone."""

    def __init__(self, nest: Nest, spec: str, answer: bytes) -> None:
        path = str(nest.folder / f"echo-{spec}.sock")
        process = nest.start_module("bench.echo", path, stdin=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(answer)
        process.stdin.close()
        if process.stdout.readline() != b"ready\n":
            raise BenchError(f"the echo server does not start: {nest.complaint('echo.log')}")
        self._client = Client(path)
        self._spec = spec

    def call(self) -> object:
        return self._client.generate_data_key_pair(
            KeyId=KEY_ID,
            KeyPairSpec=self._spec,
            EncryptionContext=CONTEXT,
        )


class Redis:
    """A private Redis server without persistence and TCP, and redis-py with hiredis to ask it."""

    def __init__(self, nest: Nest) -> None:
        import redis

        path = str(nest.folder / "redis.sock")
        arguments = ["--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no"]
        process = nest.start(["redis-server", *arguments, "--dir", str(nest.folder)], log="redis.log")
        self._redis = redis.Redis(unix_socket_path=path)
        give_up = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                self._redis.ping()
            except redis.exceptions.ConnectionError as error:
                if process.poll() is not None or time.monotonic() > give_up:
                    raise BenchError("redis-server does not start") from error
                time.sleep(0.02)
            else:
                return

    @staticmethod
    def why_not() -> str:
        """Empty when Redis can take part, else what is missing."""
        try:
            import hiredis  # noqa: F401
            import redis  # noqa: F401
        except ImportError:
            return "redis-py and hiredis are not installed (pip install 'kpcache[bench]')"
        if shutil.which("redis-server") is None:
            return "there is no redis-server (Debian: apt-get install redis-server)"
        return ""

    def fill(self, value: bytes, count: int) -> None:
        """Have ``count`` values ready to be taken."""
        self._redis.delete(_LIST)
        self._redis.rpush(_LIST, *([value] * count))

    def call(self) -> object:
        value = self._redis.lpop(_LIST)
        if value is None:
            raise BenchError("the Redis list ran dry")
        return value


def in_process(spec: str) -> Callable[[], object]:
    """Make a pair with cryptography and encode both keys, as an application without kpcache does."""
    return lambda: generate(spec)

"""Settings from a file, and what they default to for whoever runs the command, where they run it."""

import os
import stat
import tomllib
from collections.abc import Mapping

from kpcache.core.config import load
from kpcache.core.settings import Config, Defaults
from kpcache.errors import ConfigError

# A thousand times a file with every key.
_MAX_FILE_BYTES = 1_048_576


def load_file(path: str | None, *, socket: str | None = None, again: bool = False) -> Config:
    """The settings in ``path`` (None: defaults only); ``socket`` goes before ``daemon.socket``.

    ``again``: for a daemon that runs; only a regular file will do then, since whatever else it is has been
    read, or may keep its reader waiting. Raises ``ConfigError`` with the file's name in front.
    """
    settings = _read(path, again=again) if path else {}
    if socket is not None:
        daemon = settings.get("daemon", {})
        if isinstance(daemon, dict):
            settings["daemon"] = {**daemon, "socket": os.path.abspath(socket)}
    defaults = defaults_for(os.environ, os.geteuid(), usable_cpus=len(os.sched_getaffinity(0)))
    try:
        return load(settings, defaults=defaults)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}" if path else error.message) from None


def defaults_for(environ: Mapping[str, str], uid: int, *, usable_cpus: int) -> Defaults:
    """Root: /run/kpcache and /var/lib/kpcache; others: their XDG runtime and state folders.

    Without a runtime folder the socket goes to the state folder, where clients look last. The state lies
    in a folder of its own there: only the daemon may enter it, and "empty" must mean empty.
    """
    if uid == 0:
        run, state = "/run/kpcache", "/var/lib/kpcache"
    else:
        home = environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        runtime = environ.get("XDG_RUNTIME_DIR")
        run, state = f"{runtime or home}/kpcache", f"{home}/kpcache/state"
    return Defaults(f"{run}/kpcache.sock", state, f"{run}/reserve", usable_cpus)


def _read(path: str, *, again: bool) -> dict[str, object]:
    try:
        # A pipe without a writer would otherwise not even open.
        with open(path, "rb", opener=_open_at_once if again else None) as file:
            if again and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(
                    f"{path}: this is no regular file and cannot be read again; start the daemon with "
                    "--config and the path of one"
                )
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}; --config must name a file of settings that this user can read"
        ) from error
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than any file of settings; --config must name one")
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)

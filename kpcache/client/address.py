"""Where the daemon's socket is, and whether the process that listens there may be believed.

A client hands over key ids and encrypted keys and takes private keys on trust, so it must not talk to
whoever was first to bind a path. ``SO_PEERCRED`` tells the uid of the process that called ``listen``;
behind a systemd socket unit that is systemd (root): it proves who listens, not who answers.
"""

import os
import stat
from collections.abc import Mapping

SYSTEM_SOCKET = "/run/kpcache/kpcache.sock"

# The kernel's overflow uid ("nobody"): what a uid without a mapping in our user namespace is shown as.
# Any number of strangers share it, so it identifies nobody.
_OVERFLOW_UID = 65534


def find_socket(explicit: str | None, environ: Mapping[str, str]) -> str:
    """The path to connect to.

    In order: ``explicit``, ``KPCACHE_SOCKET``, then of these the first that exists:
    ``$XDG_RUNTIME_DIR/kpcache/kpcache.sock``, ``/run/kpcache/kpcache.sock``, and where a daemon without
    a runtime folder puts it, ``$XDG_STATE_HOME`` (or ``~/.local/state``) ``/kpcache/kpcache.sock``.
    When none exists the answer is ``/run/kpcache/kpcache.sock``, for the error message to name.
    """
    named = explicit or environ.get("KPCACHE_SOCKET")
    if named:
        return named
    return next((path for path in default_sockets(environ) if os.path.exists(path)), SYSTEM_SOCKET)


def default_sockets(environ: Mapping[str, str]) -> list[str]:
    """Where a daemon that was told nothing may listen, in the order in which a client looks."""
    paths = [SYSTEM_SOCKET]
    if runtime_dir := environ.get("XDG_RUNTIME_DIR"):
        paths.insert(0, f"{runtime_dir}/kpcache/kpcache.sock")
    state_home = environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return [*paths, f"{state_home}/kpcache/kpcache.sock"]


def why_not_trusted(path: str, server_uid: int, environ: Mapping[str, str]) -> str:
    """Empty when the server may be believed, else the reason why not.

    Believed are root, our own effective uid, ``KPCACHE_SERVER_UID``, and the owner of the socket's
    folder where root alone can change what lies above it: such a folder is root's word on who serves.
    """
    if server_uid == _OVERFLOW_UID:
        return "it runs as uid 65534, which stands for any uid unknown here"
    if server_uid in (0, os.geteuid()) or str(server_uid) == environ.get("KPCACHE_SERVER_UID", "").strip():
        return ""
    if _is_appointed_by_root(path, server_uid):
        return ""
    return (
        f"it runs as uid {server_uid}, which is neither root, nor uid {os.geteuid()} (yours), nor "
        "KPCACHE_SERVER_UID, nor the owner of the socket's folder below folders that only root can change"
    )


def _is_appointed_by_root(path: str, uid: int) -> bool:
    # The path as given and the path with links resolved: a link in a folder that others can write to
    # could otherwise lead to a stranger's home, which passes by itself.
    forms = (os.path.abspath(path), os.path.realpath(path))
    return all(_owns_below_root(os.path.dirname(form), uid) for form in forms)


def _owns_below_root(folder: str, uid: int) -> bool:
    try:
        if os.stat(folder).st_uid != uid:
            return False
        while folder != "/":
            folder = os.path.dirname(folder)
            above = os.stat(folder)
            if above.st_uid != 0 or stat.S_IMODE(above.st_mode) & 0o022:
                return False
    except OSError:
        return False
    return True

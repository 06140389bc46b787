"""Reads the small files in which one life of the daemon leaves the next one a note, as JSON.

They can lie in the runtime folder, where nothing is trusted to be what it is called: nothing is followed,
waited for, or read to an end that may never come.
"""

import json
import os
from pathlib import Path
from typing import Any, Final

_MAX_BYTES: Final = 4096


def read_json(path: Path | str, *, dir_fd: int | None = None) -> Any:
    """What the file has. Raises ``OSError``, and ``ValueError`` for what is no JSON, or too much of it."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        data = os.read(fd, _MAX_BYTES)
    finally:
        os.close(fd)
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("JSON within JSON, too deep") from None

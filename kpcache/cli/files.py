"""Files readable by their owner alone that never replace another: ``get --out``, ``keyring export``."""

import os
from typing import Any

from kpcache.cli.formats import render
from kpcache.cli.output import OutputError, UsageError, as_json, to_stdout

_BLOB_SUFFIX = ".blob"


class PairFiles:
    """Writes the pairs of one command to ``folder``, which exists already or is made (0700).

    Names are the spec in lower case, with a number when there are several pairs, then a suffix; the
    encrypted private key is NAME.blob. Names in use are found before a pair is asked for: a pair that
    cannot be written is lost.
    """

    def __init__(self, folder: str, spec: str, form: str, count: int) -> None:
        self._folder, self._form = folder, form
        width = len(str(count))
        stem = spec.lower()
        self._stems = [stem] if count == 1 else [f"{stem}-{n:0{width}}" for n in range(1, count + 1)]
        _ensure_folder(folder)
        self._refuse_taken()

    def write(self, answer: dict[str, Any], number: int) -> None:
        """All files of pair ``number`` (from 1), or none. Prints their paths."""
        written: list[str] = []
        try:
            for suffix, content in self._contents(answer):
                path = os.path.join(self._folder, self._stems[number - 1] + suffix)
                write_new(path, content, written)
        except OSError as error:
            for path in written:
                os.unlink(path)
            raise OutputError(
                f"{error.filename or self._folder}: {error.strerror}; this pair is lost"
            ) from error
        with to_stdout("; the pair is not lost: its files are written"):
            print("\n".join(written))

    def _contents(self, answer: dict[str, Any]) -> list[tuple[str, bytes]]:
        if self._form == "json":
            return [(".json", as_json(answer).encode() + b"\n")]
        pair = render(self._form, answer.get("PrivateKeyPlaintext"), answer["PublicKey"])
        contents = [(pair.suffixes[1], pair.public), (_BLOB_SUFFIX, answer["PrivateKeyCiphertextBlob"])]
        if pair.private is not None:
            contents.insert(0, (pair.suffixes[0], pair.private))
        return contents

    def _refuse_taken(self) -> None:
        stems = set(self._stems)
        for name in os.listdir(self._folder):
            if name.partition(".")[0] in stems:
                raise UsageError(
                    f"{os.path.join(self._folder, name)} exists: name another folder, or move it"
                )


def _ensure_folder(folder: str) -> None:
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise UsageError(f"--out {folder}: is not a folder") from None
    except OSError as error:
        raise UsageError(f"--out {folder}: {error.strerror}") from error


def write_new(path: str, content: bytes, written: list[str]) -> None:
    """A file that was not there, 0600, on disk at return; ``path`` joins ``written`` once it exists."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    written.append(path)
    with open(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(handle)


def sync_folder(folder: str) -> None:
    """Make the names of files in it survive a power cut. Raises ``OSError``."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

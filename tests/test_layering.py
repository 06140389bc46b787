"""Imports point down only, the core asks for nothing from outside, and what must be light is light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kpcache

ROOT = Path(kpcache.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

# What each room may import of the package, besides itself. The root package is its version and its map.
ROOMS = {
    "cli": {"daemon", "worker", "keyring", "client", "simulator", "core", "errors", ""},
    "daemon": {"worker", "keyring", "core", "errors", ""},
    "worker": {"core", "errors", ""},
    "keyring": {"core", "errors"},
    "client": {"core", "errors"},
    "simulator": {"core", "errors"},
    "core": {"errors"},
    "errors": set(),
    "": {"client"},
    "__main__": {"cli"},
}
# Clock, randomness, I/O, threads: all that would make a rule depend on more than its arguments.
FORBIDDEN_IN_CORE = {
    "asyncio", "datetime", "io", "os", "random", "secrets", "select", "selectors", "socket", "subprocess",
    "tempfile", "threading", "time", "trio", "uuid",
}  # fmt: skip


def room_of(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports(path: Path) -> Iterator[str]:
    """Every module that ``path`` names in an import, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports name the package in full"
            assert node.module is not None
            # `from kpcache.core import wire` names a module, `from kpcache import __version__` does not.
            yield from (
                f"{node.module}.{alias.name}" if node.module.count(".") < 2 else node.module
                for alias in node.names
            )


def rooms_imported(path: Path) -> set[str]:
    found = set()
    for name in imports(path):
        package, _, rest = name.partition(".")
        if package == "kpcache":
            room = rest.partition(".")[0]
            found.add("" if room in ("__version__", "Client", "load_private_key") else room)
    return found


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_imports_point_down_only(path: Path) -> None:
    room = room_of(path)
    assert rooms_imported(path) <= {room, *ROOMS[room]}


PURE = [path for path in MODULES if room_of(path) in ("core", "simulator")]


@pytest.mark.parametrize("path", PURE, ids=ids)
def test_core_asks_for_no_clock_no_randomness_and_no_io(path: Path) -> None:
    # The simulator names the type of the luck that is handed to it, and makes none: see the test below.
    allowed = {"random"} if room_of(path) == "simulator" else set()
    assert not {name.partition(".")[0] for name in imports(path)} & FORBIDDEN_IN_CORE - allowed
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"open", "print", "input", "breakpoint", "exec", "eval"}


def uses_of_random(path: Path) -> list[ast.expr]:
    """Where ``random`` stands for more than a type: anything but an annotation."""
    tree = ast.parse(path.read_text())
    annotations = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None
        for part in ast.walk(node.annotation)
    }
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == "random" and id(node) not in annotations
    ]


@pytest.mark.parametrize("path", [path for path in MODULES if room_of(path) == "simulator"], ids=ids)
def test_the_simulator_makes_no_luck_of_its_own(path: Path) -> None:
    assert not any(name.startswith("random.") for name in imports(path))
    assert not uses_of_random(path)


def test_the_check_above_sees_luck_being_made(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("import random\ndef f(luck: random.Random) -> float:\n    return luck.random()\n")
    assert not uses_of_random(module)
    module.write_text("import random\nx: float = random.random()\n")
    assert len(uses_of_random(module)) == 1


def test_the_checks_above_see_an_import_wherever_it_stands(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "def f():\n    from kpcache import Client\n    from kpcache.daemon import stock\n    import os.path\n"
    )
    assert rooms_imported(module) == {"", "daemon"}
    assert "os.path" in set(imports(module))


def loaded_by(code: str) -> set[str]:
    """The top-level modules in a fresh interpreter after ``code``."""
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-c",
            f"{code}\nimport sys\nprint(*{{m.partition('.')[0] for m in sys.modules}})",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import kpcache", {"trio", "boto3", "cryptography", "msgpack", "rich"}),
        ("from kpcache import Client", {"trio", "boto3", "cryptography", "rich"}),
        ("from kpcache import load_private_key", {"trio", "boto3", "rich"}),
        ("import kpcache.worker.shard", {"trio", "boto3", "rich", "cryptography"}),
        ("import kpcache.worker.maker", {"trio", "boto3", "rich"}),
        ("import kpcache.daemon.main", {"boto3", "rich"}),
    ],
)
def test_what_must_be_light_is_light(code: str, unwanted: set[str]) -> None:
    assert not loaded_by(code) & unwanted


def test_the_light_check_sees_a_heavy_import() -> None:
    assert "trio" in loaded_by("import kpcache.daemon.main")

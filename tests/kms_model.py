"""The KMS service model as botocore has it, turned into values that a check must take and must refuse.

What the model says is read anew each time the tests run: what a later botocore adds is probed too, and a
kind of constraint that is not known here fails.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import botocore.session

MODEL: Final = botocore.session.get_session().get_service_model("kms")
# What some enum of the model allows, and what none does.
ENUM_VALUES: Final = {"no-such-value"}.union(
    *(MODEL.shape_for(name).metadata.get("enum", ()) for name in MODEL.shape_names)
)
# For each pattern of the model: a character that it allows and one that it does not.
PATTERNS: Final = {
    "^[a-zA-Z0-9:/_-]+$": ("a", " "),
    "[\\u0020-\\u00FF]*": ("ÿ", "Ā"),
    "[\\u0009\\u000A\\u000D\\u0020-\\u00FF]+": ("\t", "\0"),
    "^[a-zA-Z0-9-_.]+$": (".", "/"),
}
# Of each kind a value; of maps and structures the same one, as they are both maps on the wire.
KINDS: Final[Mapping[str, Any]] = {
    "string": "a", "blob": b"a", "boolean": True, "integer": 1, "float": 1.5, "list": ["a"],
    "map": {"a": "b"},
}  # fmt: skip
PYTHON: Final[Mapping[str, type[Any]]] = {
    "string": str, "blob": bytes, "boolean": bool, "integer": int, "timestamp": float, "list": list,
}  # fmt: skip
CONSTRAINTS: Final = {"min", "max", "enum", "pattern", "required", "sensitive"}
MANY: Final = 100_000  # far more than anything may have, where the model sets no bound


class Probe(NamedTuple):
    """``value`` is one that a member of this shape may have or may not, and ``why`` that is probed."""

    value: Any
    allowed: bool
    path: str
    shape: str
    why: str


def operation(name: str) -> Any:
    return MODEL.operation_model(name)


def errors(name: str) -> set[str]:
    return {shape.name for shape in operation(name).error_shapes}


def _sample(shape: Any) -> Any:
    return next(probe.value for probe in probes(shape) if probe.allowed)


def probes(shape: Any, path: str = "") -> Iterator[Probe]:
    """Values at and beyond each bound of a shape, its members' included; the first one is allowed."""
    assert not set(shape.metadata) - CONSTRAINTS, f"{path}: the model has a new kind of constraint"

    def probe(value: Any, allowed: bool, why: str) -> Probe:
        return Probe(value, allowed, path, shape.name, why)

    kind = shape.type_name
    match kind:
        case "string" if "enum" in shape.metadata:
            yield from (probe(value, True, f"enum {value}") for value in shape.metadata["enum"])
            yield from (
                probe(value, False, f"enum {value}") for value in ENUM_VALUES - {*shape.metadata["enum"]}
            )
        case "string":
            good, bad = PATTERNS[shape.metadata["pattern"]] if "pattern" in shape.metadata else ("a", "")
            yield from _lengths(probe, shape, lambda length: good * length)
            if bad:
                yield probe(bad + good * max(0, shape.metadata.get("min", 0) - 1), False, "pattern")
        case "blob":
            yield from _lengths(probe, shape, lambda length: b"a" * length)
        case "boolean":
            yield from (probe(value, True, "type") for value in (True, False))
        case "integer":
            least, most = shape.metadata["min"], shape.metadata["max"]
            yield from (probe(value, True, "value") for value in (least, most))
            yield from (probe(value, False, "value") for value in (least - 1, most + 1))
        case "list":
            each = _sample(shape.member)
            yield from _lengths(probe, shape, lambda length: [each] * length)
            for inner in probes(shape.member, f"{path}[]"):
                yield inner._replace(value=[inner.value])
        case "map":
            yield probe({}, True, "empty")
            yield probe({f"k{number}": "v" for number in range(MANY)}, True, "unbounded")
            for inner in probes(shape.key, f"{path}.key"):
                if isinstance(inner.value, str | bytes | int | float):
                    yield inner._replace(value={inner.value: _sample(shape.value)})
            for inner in probes(shape.value, f"{path}.value"):
                yield inner._replace(value={_sample(shape.key): inner.value})
        case "structure":
            yield from _structure(probe, shape, path)
        case _:
            raise AssertionError(f"{path}: the model has the new type {kind}")
    same = {"structure": "map"}.get(kind, kind)
    yield from (probe(value, False, "type") for name, value in KINDS.items() if name != same)


def _lengths(
    probe: Callable[[Any, bool, str], Probe], shape: Any, value_of: Callable[[int], Any]
) -> Iterator[Probe]:
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max")
    yield probe(value_of(max(1, least)), True, "length")
    yield probe(value_of(least), True, "min")
    if least:
        yield probe(value_of(least - 1), False, "min")
    if most is None:
        yield probe(value_of(MANY), True, "unbounded")
    else:
        yield probe(value_of(most), True, "max")
        yield probe(value_of(most + 1), False, "max")


def _structure(probe: Callable[[Any, bool, str], Probe], shape: Any, path: str) -> Iterator[Probe]:
    needed = {name: _sample(shape.members[name]) for name in shape.required_members}
    yield probe(dict(needed), True, "required")
    for missing in needed:
        yield probe({name: needed[name] for name in needed if name != missing}, False, f"required {missing}")
    yield probe({**needed, "NoSuchMember": 1}, False, "unknown")
    for name, member in shape.members.items():
        for inner in probes(member, f"{path}.{name}".lstrip(".")):
            yield inner._replace(value={**needed, name: inner.value})


def differences(takes: Callable[[Any], bool], shape: Any) -> set[tuple[str, str]]:
    """Where a check takes what the model does not, or refuses what it does: shapes, and what was probed."""
    return {(probe.shape, probe.why) for probe in probes(shape) if takes(probe.value) is not probe.allowed}


def misfit(value: Any, shape: Any, path: str = "") -> str:
    """Why a value of an answer is not of its shape; "" if it is."""
    if type(value) is not PYTHON.get(shape.type_name, dict):
        return f"{path}: {shape.type_name}"
    match shape.type_name:
        case "structure":
            inner = (
                misfit(each, shape.members[name], f"{path}.{name}")
                if name in shape.members
                else f"{path}.{name}"
                for name, each in value.items()
            )
            missing = (f"{path}.{name} missing" for name in shape.required_members if name not in value)
            return next(filter(None, itertools.chain(inner, missing)), "")
        case "list":
            return next(filter(None, (misfit(each, shape.member, f"{path}[]") for each in value)), "")
    bounds = shape.metadata
    size = value if shape.type_name == "integer" else len(value) if isinstance(value, str | bytes) else 1
    if not bounds.get("min", size) <= size <= bounds.get("max", size):
        return f"{path}: bounds"
    if value not in bounds.get("enum", [value]):
        return f"{path}: enum"
    if "pattern" in bounds and not re.fullmatch(bounds["pattern"], value):
        return f"{path}: pattern"
    return ""


def paths(value: Any, path: str = "") -> set[str]:
    """The members of an answer, nested ones with a dot before them; of lists, those of all entries."""
    if isinstance(value, list):
        return set().union(*(paths(each, path) for each in value))
    if not isinstance(value, dict):
        return set()
    return set().union(*({f"{path}{name}"} | paths(each, f"{path}{name}.") for name, each in value.items()))


def shape_paths(shape: Any, path: str = "") -> set[str]:
    """The members that the model knows, written as ``paths`` does."""
    if shape is None or shape.type_name not in ("structure", "list"):
        return set()
    if shape.type_name == "list":
        return shape_paths(shape.member, path)
    return set().union(
        *({f"{path}{name}"} | shape_paths(each, f"{path}{name}.") for name, each in shape.members.items())
    )

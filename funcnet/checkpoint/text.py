"""JSON as a manifest needs it: strict, and with the floats that JSON lacks."""

import json
import math
from pathlib import Path
from typing import Any

from .errors import CheckpointError

__all__ = ["parsed", "plain", "restored"]

_FLOAT = "$float"


def plain(value: Any, where: str) -> Any:
    """A copy of `value` in JSON's terms: tuples as lists, nan and infinities as an object; `TypeError` for the rest.

    >>> plain({"loss": float("nan"), "at": (1, None)}, "metrics")
    {'loss': {'$float': 'nan'}, 'at': [1, None]}
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {_FLOAT: str(value)}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict) and _FLOAT not in value and all(type(key) is str for key in value):
        return {key: plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    raise TypeError(
        f"{where} is {value!r}, a {type(value).__name__}: it goes into a JSON file, which holds numbers, strings, "
        "lists and dicts with names for keys. Write tensor.item() or tensor.tolist(), str(path), or a dict of fields."
    )


def restored(value: Any) -> Any:
    """The inverse of `plain`, less the tuples.

    >>> restored({"loss": {"$float": "nan"}})
    {'loss': nan}
    """
    match value:
        case list():
            return [restored(item) for item in value]
        case {"$float": "nan" | "inf" | "-inf" as name}:
            return float(name)
        case dict():
            return {key: restored(item) for key, item in value.items()}
    return value


def parsed(text: bytes, path: Path, what: str) -> Any:
    """The value of strict JSON: no name twice, nor numbers that JSON lacks; `CheckpointError` for anything else."""
    try:
        return json.loads(text.decode("utf-8", "surrogatepass"), object_pairs_hook=_once, parse_constant=_constant)
    except (ValueError, RecursionError) as error:  # bad UTF-8, bad JSON, integers of too many digits, too deep
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise CheckpointError(f"{what} {path} is no valid JSON ({reason}): it was cut short or edited.") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")

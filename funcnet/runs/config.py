"""Everything a run is made of, as one value and as a TOML file."""

import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from funcnet.runs.errors import RunError, known

__all__ = ["Config", "dump", "option", "read", "resolved"]


@dataclass(frozen=True)
class Config:
    """What a run is made of. Numbers are checked, names are not: whoever makes of them what they name does that.

    Raises:
        RunError: a value of the wrong type, or out of range.

    >>> Config(data="digits", model="mlp:64", lr=0.01).optim
    'adamw'
    >>> Config(data="digits", model="mlp:64", epochs=0)
    Traceback (most recent call last):
    funcnet.runs.RunError: epochs is 0: it is a whole number from 1 on.
    """

    data: str
    model: str
    root: str | None = None
    download: bool = False
    size: str | None = None
    skip_bad: bool = False
    length: int = 64
    augment: tuple[str, ...] = ()
    init_from: str | None = None
    freeze: tuple[str, ...] = ()
    optim: str = "adamw"
    lr: float | None = None
    weight_decay: float | None = None
    schedule: str = "constant"
    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 64
    accumulate: int = 1
    clip: float | None = None
    ema: float | None = None
    skip_nonfinite: bool = False
    precision: str = "fp32"
    compile: bool = False
    device: str = "auto"
    seed: int = 0
    early_stopping: int | None = None
    metrics: tuple[str, ...] = ()
    save_every: int | None = None
    keep_last: int = 3
    log_every: int | None = None

    def __post_init__(self) -> None:
        """Check the types and ranges."""
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if isinstance(value, int) and not isinstance(value, bool) and kind.base is float:
                object.__setattr__(self, name, value := float(value))
            if value is None and kind.optional:
                continue
            _check(name, value, kind)
        if self.epochs is not None and self.steps is not None:
            raise RunError(
                f"a run ends after epochs = {self.epochs} or after steps = {self.steps}: give one of the two."
            )

    @property
    def ends(self) -> dict[str, int]:
        """Where the run ends, as `fit` takes it: `epochs`, by default 5, or `steps`."""
        return {"steps": self.steps} if self.steps is not None else {"epochs": self.epochs or 5}


class Kind(typing.NamedTuple):
    """What a field may be."""

    base: type
    several: bool
    optional: bool


def _kind(hint: Any) -> Kind:
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    base = next(part for part in parts if part is not type(None))
    several = typing.get_origin(base) is tuple
    return Kind(str if several else base, several, type(None) in parts)


_KINDS = {name: _kind(hint) for name, hint in typing.get_type_hints(Config).items()}
_WORDS = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}
# Numbers that are less than these, or not above them, make no sense.
_LEAST = {"seed": -(2**63), "weight_decay": 0.0, "ema": 0.0}
_ABOVE_ZERO = ("lr", "clip")


def option(name: str) -> Kind:
    """What a field of `Config` may be."""
    return _KINDS[name]


def _exactly(value: Any, kind: type) -> bool:
    return type(value) is kind  # a bool is no number


def _check(name: str, value: Any, kind: Kind) -> None:
    if kind.several:
        if not isinstance(value, tuple) or not all(type(item) is str for item in value):
            raise RunError(f'{name} is {value!r}: it is a list of texts. Write {name} = ["..."].')
        return
    if not _exactly(value, kind.base):
        raise RunError(f"{name} is {value!r}: it is {_WORDS[kind.base]}.")
    if kind.base is str and (not value or not value.isprintable()):
        raise RunError(f"{name} is {value!r}: it is a text in one line, and not empty.")
    if kind.base in (int, float):
        least = _LEAST.get(name, 1)
        high = 2**64 if name == "seed" else 1.0 if name == "ema" else math.inf
        above = "a number above 0" if name in _ABOVE_ZERO else f"{_WORDS[kind.base]} from {least:g} on"
        right = value > 0 if name in _ABOVE_ZERO else value >= least
        if not right or not value < high:
            told = {"ema": "a number from 0 on and below 1, such as 0.999", "seed": "a whole number of 64 bits"}
            raise RunError(f"{name} is {value!r}: it is {told.get(name, above)}.")


def resolved(values: Mapping[str, Any], where: str) -> Config:
    """A config of values by name, as from a file.

    Raises:
        RunError: an unknown name, with those near it; a wrong value; or what is needed is not there.

    >>> resolved({"data": "digits", "model": "linear", "epoch": 3}, "a.toml")
    Traceback (most recent call last):
    funcnet.runs.RunError: a.toml: 'epoch' is no setting; near names: epochs.
    """
    try:
        for name in values:
            known(name, list(_KINDS), "setting")
        for name, example in (("data", "mnist"), ("model", "mlp:512-256")):
            if name not in values:
                raise RunError(f"there is no {name}: write --{name} {example}, or {name} = {example!r} in a file.")
        settings: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        return Config(**settings)
    except RunError as error:
        raise RunError(f"{where}: {error}" if where else str(error)) from None


def read(path: str | Path) -> dict[str, Any]:
    """The settings in a TOML file, by name; they are not checked.

    Raises:
        RunError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(Path(path).read_bytes().decode())
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is no UTF-8, at byte {error.start}.") from error
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"{path} is no TOML: {error}.") from error


def dump(config: Config, comment: str = "") -> str:
    """A config as TOML: what `read` and `resolved` make the same config of. What is None is left out.

    Args:
        config: what to write.
        comment: lines to put above it.

    >>> print(dump(Config(data="digits", model="linear", lr=0.1), "an example").splitlines()[:4])
    ['# an example', '', 'data = "digits"', 'model = "linear"']
    """
    printed = ["".join(c if c.isprintable() else "?" for c in line) for line in comment.splitlines()]
    lines = [f"# {line}".rstrip() for line in printed]
    lines += [""] if lines else []
    for name in _KINDS:
        value = getattr(config, name)
        if value is not None:
            lines.append(f"{name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        # What a TOML string cannot hold as it is.
        return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in escaped) + '"'
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)

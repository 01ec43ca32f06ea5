"""What a function can reach besides its arguments: read before a call and after it, and compared."""

import functools
import random as python_random
import sys
from collections import Counter, deque
from collections.abc import Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Watch", "content", "generators"]

_MOST_NODES = 20_000  # a data set that a function happens to mention is not worth minutes
_MOST_BYTES = 1 << 20
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
_FOREIGN = frozenset({"torch", "torchvision", "numpy", "funcnet", "builtins", *sys.stdlib_module_names} - {"__main__"})
_BOOKKEEPING = frozenset(vars(nn.Module())) | {"__weakref__", "__dict__", "__doc__", "__module__"}


def generators() -> dict[str, Any]:
    """The states of the global random generators, by name."""
    name, words, *rest = np.random.get_state()
    states: dict[str, Any] = {
        "torch's global generator": torch.get_rng_state().numpy().tobytes(),
        "numpy.random": (name, np.asarray(words).tobytes(), *rest),
        "Python's random": python_random.getstate(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's own
        states["the CUDA generators"] = [state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()]
    return states


class Watch:
    """A picture of some objects and of what they reach: closures, globals that functions mention, class attributes."""

    def __init__(self, roots: dict[str, Any]) -> None:
        """Take the picture; each root is an object by the words that name its owner."""
        self._roots = roots
        self._before = self._look()

    def change(self) -> tuple[str, str, str] | None:
        """What is another now, as `(owner, path, was and is)`; None where nothing is."""
        now = self._look()
        for place in [*self._before, *(place for place in now if place not in self._before)]:
            was, owner = self._before.get(place, (None, ""))
            found, owner = now.get(place, (None, owner))
            if was != found:
                return owner, place[0], _changed(was, found)
        return None

    def _look(self) -> dict[tuple[str, int], tuple[Any, str]]:
        """What there is by path, and by the how manyth it is of that path: two closures may have a variable alike."""
        found: dict[tuple[str, int], tuple[Any, str]] = {}
        counts: Counter[str] = Counter()
        seen: set[int] = set()

        def note(path: str, token: Any, owner: str) -> None:
            found[path, counts[path]] = token, owner
            counts[path] += 1

        # Breadth first: the shortest path to an object is the one a reader understands.
        queue = deque((owner, "", root) for owner, root in self._roots.items())
        while queue and len(found) < _MOST_NODES:
            owner, path, value = queue.popleft()
            token = _token(value)
            if token is not None:
                note(path, token, owner)
                continue
            if id(value) in seen:
                continue
            seen.add(id(value))
            if isinstance(value, dict | list | tuple | set | deque):
                note(path, (type(value).__name__, len(value)), owner)
            queue.extend((owner, child_path, child) for child_path, child in _children(path, value))
        return found


def _changed(was: Any, found: Any) -> str:
    before, after = _words(was), _words(found)
    return f"was {before}, is {after}" if before != after else f"is {after} with another content than before"


def _words(token: Any) -> str:
    if token is None:
        return "absent"
    kind, content, *rest = token
    if kind == "value":
        return str(rest[0])
    if isinstance(content, tuple):
        return f"a {kind} of shape {content}"
    return f"a {kind} of {content}" if isinstance(content, int) else f"a {kind}"


def _token(value: Any) -> tuple[Any, ...] | None:
    """What identifies a leaf's value; None for what has children."""
    if isinstance(value, _PLAIN):
        return "value", type(value), repr(value)  # a NaN is not equal to itself, its text is
    if isinstance(value, Tensor):
        return _tensor_token(value)
    if isinstance(value, np.ndarray):
        return "numpy array", value.shape, value.tobytes() if value.nbytes <= _MOST_BYTES else id(value)
    if isinstance(value, np.random.Generator):
        return type(value).__name__, str(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return type(value).__name__, str(value.get_state())
    if isinstance(value, python_random.Random):
        return type(value).__name__, str(value.getstate())
    if isinstance(value, torch.Generator):
        return "torch.Generator", value.get_state().numpy().tobytes()
    if type(value).__module__ == "itertools":
        return type(value).__name__, repr(value)
    return None


def _tensor_token(value: Tensor) -> tuple[Any, ...]:
    plain = value.detach()
    shape = tuple(plain.shape)
    if plain.device.type == "meta" or plain.layout != torch.strided or plain.nbytes > _MOST_BYTES:
        return "tensor", shape, id(value), value._version
    return "tensor", shape, content(plain)


def content(value: Tensor) -> bytes:
    """The bytes of a tensor's numbers."""
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _children(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((f"{path}[{key!r}]", child) for key, child in value.items())
    elif isinstance(value, list | tuple | set | deque):
        yield from ((f"{path}[{i}]", child) for i, child in enumerate(value))
    elif isinstance(value, functools.partial):
        yield from ((path, child) for child in (value.func, value.args, value.keywords))
    elif isinstance(value, MethodType):
        yield from ((path, child) for child in (value.__self__, value.__func__))
    elif isinstance(value, FunctionType):
        yield from _reached_by(value)
    elif isinstance(value, type):
        if not _foreign(value):
            own = [base for base in value.__mro__ if not _foreign(base)]
            for base in own:
                yield from (
                    (f"class attribute {base.__name__}.{name}", child)
                    for name, child in vars(base).items()
                    if name not in _BOOKKEEPING and not name.startswith("_abc_")
                )
    elif isinstance(value, nn.Module):
        yield path, type(value)
        tensors = {**value._parameters, **value._buffers, **value._modules}
        yield from ((f"{path}.{name}", child) for name, child in tensors.items())
        yield from ((f"{path}.{k}", child) for k, child in vars(value).items() if k not in _BOOKKEEPING)
    elif isinstance(value, property | staticmethod | classmethod | functools.cached_property):
        yield path, getattr(value, "fget", None) or getattr(value, "__func__", None) or getattr(value, "func", None)
    elif not isinstance(value, ModuleType | BuiltinFunctionType) and not _foreign(type(value)):
        yield path, type(value)
        yield from ((f"{path}.{name}", child) for name, child in _attributes(value))


def _foreign(kind: Any) -> bool:
    """Whether a class or function is of a library that is known to keep its own house."""
    return str(getattr(kind, "__module__", "")).partition(".")[0] in _FOREIGN


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    yield from getattr(value, "__dict__", {}).items()
    for base in type(value).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                yield name, getattr(value, name)


def _reached_by(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The closure, the default arguments, the attributes and the globals of a function."""
    if _foreign(function):
        return
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None:
        yield "", wrapped
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"closure variable {name!r}", cell.cell_contents
        except ValueError:
            continue  # not assigned yet
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    yield from ((f"default argument {i} of {function.__name__}", child) for i, child in enumerate(defaults))
    yield from ((f"attribute {function.__name__}.{name}", child) for name, child in vars(function).items())
    mentioned = sorted(_mentioned(function.__code__))
    for name in mentioned:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType) and value.__name__.partition(".")[0] not in _FOREIGN:
            own = (attribute for attribute in mentioned if attribute in vars(value))
            yield from ((f"global {attribute!r} of {value.__name__}", vars(value)[attribute]) for attribute in own)
        elif name in function.__globals__:
            yield f"global {name!r} of {function.__module__}", value


def _mentioned(code: CodeType) -> set[str]:
    """The global names that code mentions, that of functions inside it included."""
    inner = [_mentioned(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*inner)

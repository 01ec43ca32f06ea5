"""Models and inputs written as text, for the shell: `torchvision:resnet50`, `package.module:factory`, `2,3,32,32`."""

import ast
import copy
import importlib
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from funcnet import random
from funcnet.model import Model

__all__ = ["Input", "SpecError", "example", "failing", "function", "load", "parse_input"]


class SpecError(ValueError):
    """A text that names no model or no input; its message is one line."""


class Input(NamedTuple):
    """What a model is called with: `high` bounds whole numbers from above, and is None for all other dtypes."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    high: int | None


def load(text: str) -> Callable[[], nn.Module]:
    """The factory that a text names; each call of it builds a module.

    Args:
        text: `torchvision:NAME` (without pretrained weights), or `package.module:attribute`, where the attribute is a
            module class, a function that returns a module, a built module or a `Model`. Literal arguments may follow:
            `torch.nn:Linear(256, 10)`. Modules are also looked for in the current folder.

    Raises:
        SpecError: nothing can be imported or built by this name, or what is built is no `nn.Module`. The factory
            raises it too.

    >>> load("torch.nn:Linear(256, 10)")()
    Linear(in_features=256, out_features=10, bias=True)
    >>> load("torch.nn:Lineer")
    Traceback (most recent call last):
    funcnet.specs.SpecError: 'torch.nn:Lineer': torch.nn has no attribute 'Lineer'; near names: Linear, ...
    """
    package, colon, rest = text.partition(":")
    if not (colon and package and rest):
        raise SpecError(f"{text!r} names no model. Write torchvision:resnet50 or package.module:factory.")
    attribute, args, kwargs = _call(text, rest)
    with _current_folder():
        target = _torchvision(text, attribute) if package == "torchvision" else _find(text, package, attribute)

    def factory() -> nn.Module:
        with _current_folder(), warnings.catch_warnings():
            # Two torchvision models announce that they will fill their weights otherwise some day.
            warnings.filterwarnings("ignore", "The default weight initialization", FutureWarning)
            with failing(text, "cannot be built"):
                module = _build(target, args, kwargs)
        if not isinstance(module, nn.Module):
            raise SpecError(
                f"{text!r} gives a {type(module).__name__}, not an nn.Module. Name a module class, or a function that "
                f"returns a module."
            )
        return module

    factory.__name__ = text  # for the messages of whoever builds with it
    with torch.device("meta"), random.seeded(random.key(0)):
        try:
            factory()
        except SpecError as error:
            # A constructor may read values, which meta tensors lack: the caller's own device decides then.
            if not isinstance(error.__cause__, NotImplementedError | RuntimeError):
                raise
    return factory


def function(text: str) -> Callable[..., Any]:
    """The function that a text names, as `package.module:function`; modules are looked for in the current folder too.

    Raises:
        SpecError: nothing can be imported by this name, or it is no function.

    >>> function("torch:tanh")(torch.zeros(()))
    tensor(0.)
    """
    package, colon, attribute = text.partition(":")
    if not (colon and package and attribute):
        raise SpecError(f"{text!r} names no function. Write package.module:function.")
    with _current_folder():
        found = _find(text, package, attribute)
    if not callable(found):
        raise SpecError(f"{text!r} is a {type(found).__name__}, not a function.")
    return cast(Callable[..., Any], found)


@contextmanager
def failing(text: str, how: str) -> Iterator[None]:
    """A context whose errors become those of a text, in one line: what it names `how`, and why."""
    try:
        yield
    except SpecError:
        raise
    except Exception as error:  # the user's code may raise anything
        reason = " ".join(str(error).split())
        raise SpecError(f"{text!r} {how}: {type(error).__name__}: {reason}") from error


def parse_input(text: str) -> Input:
    """The shape, dtype and upper bound that a text names.

    Args:
        text: sizes, with a dtype (default float32) and for whole numbers the bound that they stay below (default 2)
            after colons: `1,3,224,224`, `8,16:float64`, `2,16:int64:1000`.

    Raises:
        SpecError: the text is no input.

    >>> parse_input("1,3,224,224")
    Input(shape=(1, 3, 224, 224), dtype=torch.float32, high=None)
    >>> parse_input("2,16:int64:1000")
    Input(shape=(2, 16), dtype=torch.int64, high=1000)
    """
    sizes, *more = text.split(":")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
        if min(shape) < 0 or len(more) > 2:
            raise ValueError
    except ValueError:
        raise SpecError(
            f"{text!r} is no input. Write sizes as 1,3,224,224 or with a dtype as 2,16:int64:1000."
        ) from None
    dtype = getattr(torch, more[0], None) if more else torch.float32
    if not isinstance(dtype, torch.dtype):
        raise SpecError(f"{more[0]!r} in {text!r} is no dtype of torch. Write float32, bfloat16, int64, bool ...")
    whole = not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
    if len(more) == 2 and not (whole and more[1].isdecimal() and int(more[1]) > 0):
        raise SpecError(
            f"{more[1]!r} in {text!r} is no bound. Write one for whole numbers only, as in 2,16:int64:1000."
        )
    return Input(shape, dtype, (int(more[1]) if len(more) == 2 else 2) if whole else None)


def example(spec: Input, key: Tensor) -> Tensor:
    """A tensor of this description: normal numbers, whole numbers in `[0, high)`, or fair coins.

    >>> example(parse_input("2,16:int64:1000"), random.key(0)).max() < 1000
    tensor(True)
    """
    if spec.high is not None:
        return random.randint(key, spec.shape, 0, spec.high).to(spec.dtype)
    if spec.dtype == torch.bool:
        return random.bernoulli(key, 0.5, spec.shape)
    if spec.dtype.is_complex:
        return torch.complex(*(random.normal(k, spec.shape) for k in random.split(key))).to(spec.dtype)
    return random.normal(key, spec.shape).to(spec.dtype)


def _call(text: str, rest: str) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """The attribute and the literal arguments of `name` or `name(1, two=3)`."""
    try:
        node = ast.parse(rest, mode="eval").body
        if not isinstance(node, ast.Call):
            return rest, (), {}
        args = tuple(ast.literal_eval(arg) for arg in node.args)
        kwargs = {word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg is not None}
    except (SyntaxError, ValueError):
        raise SpecError(
            f"{text!r}: {rest!r} is neither a name nor a call with literal arguments, such as Linear(256, 10)."
        ) from None
    return ast.unparse(node.func), args, kwargs


def _torchvision(text: str, name: str) -> Any:
    import torchvision

    try:
        builder = torchvision.models.get_model_builder(name)
    except ValueError:
        near = get_close_matches(name.lower(), torchvision.models.list_models(), 3, 0.5)
        more = f"; near names: {', '.join(near)}" if near else ""
        raise SpecError(f"{text!r}: torchvision has no model {name!r}{more}.") from None
    if "weights_backbone" not in inspect.signature(builder).parameters:
        return builder
    return lambda *args, **kwargs: builder(*args, **{"weights_backbone": None} | kwargs)  # the default downloads


def _find(text: str, package: str, attribute: str) -> Any:
    with failing(text, f"names nothing: {package} cannot be imported"):
        found = importlib.import_module(package)
    path = package
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = get_close_matches(part, dir(found), 3, 0.5)
            more = f"; near names: {', '.join(near)}" if near else ""
            raise SpecError(f"{text!r}: {path} has no attribute {part!r}{more}.")
        found, path = getattr(found, part), f"{path}.{part}"
    return found


def _build(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    found = target
    if not isinstance(target, Model | nn.Module):
        if not callable(target):
            return target
        found = target(*args, **kwargs)
    elif args or kwargs:
        raise TypeError("it is built already, and takes no arguments.")
    if isinstance(found, Model):
        return found.bind(*found.init(random.key(0)))
    return copy.deepcopy(found) if found is target else found


@contextmanager
def _current_folder() -> Iterator[None]:
    """Import from the current folder too, as `python -m` does."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)

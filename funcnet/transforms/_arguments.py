"""What every transform asks of its arguments, and the words in which it refuses them."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from funcnet import tree

Function = Callable[..., Any]
Argnums = int | Sequence[int]


def as_positions(argnums: Argnums) -> tuple[int, ...]:
    return (argnums,) if isinstance(argnums, int) else tuple(argnums)


def counted(verb: str, word: str, positions: Argnums, args: Sequence[Any]) -> tuple[int, ...]:
    """Positions from the front; negative ones count from the end."""
    found = as_positions(positions)
    if not all(-len(args) <= i < len(args) for i in found):
        raise TypeError(f"{verb} takes {word}={found}, but was called with {len(args)} arguments.")
    return tuple(i % len(args) for i in found)


def check_arguments(f: Function, verb: str, args: Sequence[Any], positions: tuple[int, ...]) -> None:
    for i in positions:
        if not -len(args) <= i < len(args):
            raise TypeError(
                f"{verb}({name(f)}) differentiates argument {i}, but was called with {len(args)} positional "
                f"arguments. Pass differentiated arguments by position, or change argnums."
            )
        for leaf in tree.leaves(args[i]):
            if not isinstance(leaf, Tensor) or not (leaf.is_floating_point() or leaf.is_complex()):
                _refuse_leaf(f, verb, i, args[i])
    if len(positions) > 1 and len({i % len(args) for i in positions}) < len(positions):
        raise ValueError(
            f"{verb}({name(f)}) has argnums={positions}, which name an argument twice (negative ones count from the "
            f"end, and there are {len(args)}). Name each once."
        )


def _refuse_leaf(f: Function, verb: str, position: int, argument: Any) -> None:
    for path, leaf in tree.leaves_with_path(argument):
        if not isinstance(leaf, Tensor) or not (leaf.is_floating_point() or leaf.is_complex()):
            where = f"leaf {path!r} of argument {position}" if path else f"argument {position}"
            raise TypeError(
                f"{verb}({name(f)}) needs floating tensors to differentiate, and {where} is {describe(leaf)}. Keep "
                f"such leaves out of the differentiated tree (`params, rest = tree.split(params, lambda name, t: "
                f"t.is_floating_point())`, or the model's state), or convert them with .float()."
            )


def name(f: Function) -> str:
    return getattr(f, "__name__", type(f).__name__)


def describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and dtype {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"a {type(value).__name__}" if value is not None else "None"

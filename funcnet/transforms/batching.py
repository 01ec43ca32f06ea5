"""One function over many elements at once: per-example gradients, ensembles."""

import functools
from collections.abc import Sequence
from typing import Any

import torch

from funcnet import random, tree
from funcnet.pure.examples import examples_apart
from funcnet.transforms._arguments import Argnums, Function, counted, describe
from funcnet.transforms.gradients import grad
from funcnet.transforms.mapping import mapped


def per_example_grad(
    f: Function,
    argnums: Argnums = 0,
    *,
    batch: Argnums | None = None,
    keys: Argnums = (),
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Function:
    """The gradient of a loss for each example of a batch: leaves gain a leading axis of the batch size.

    Each example reaches `f` as a batch of one, so the loss of a whole batch serves unchanged, and the mean of the
    result is the gradient of a mean loss. Batch normalization in train mode then sees the statistics of one example,
    of which a warning tells once.

    Args:
        f: a pure loss, as for `grad`.
        argnums: the arguments to differentiate; these are shared by all examples.
        batch: the positions whose leaves carry the examples on their first axis. Default: every other position.
        keys: the positions that hold a key; it is split, so that each example draws for itself.
        has_aux: whether `f` returns `(value, aux)`; the result is then `(grads, aux)`, both with the leading axis.
        chunk_size: at most so many examples at once, to bound memory.

    >>> x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 1.0])
    >>> loss = lambda w, x, y: ((x @ w - y) ** 2).mean()
    >>> per_example_grad(loss)(torch.tensor([3.0]), x, y)
    tensor([[ 4.],
            [20.]])
    """
    gradient = grad(f, argnums, has_aux=has_aux)

    def per_example_grad_of(*args: Any) -> Any:
        key_positions = counted("per_example_grad", "keys", keys, args)
        taken = (*counted("per_example_grad", "argnums", argnums, args), *key_positions)
        each = tuple(i for i in range(len(args)) if i not in taken)
        if batch is not None:
            each = counted("per_example_grad", "batch", batch, args)
        size = _leading_size(args, each, "per_example_grad", "batch")

        def one(*args: Any) -> Any:
            return gradient(*(tree.map(_unsqueeze, a) if i in each else a for i, a in enumerate(args)))

        in_dims = tuple(0 if i in each or i in key_positions else None for i in range(len(args)))
        split = [random.split(a, size) if i in key_positions else a for i, a in enumerate(args)]
        with examples_apart():
            return mapped(functools.wraps(f)(one), "per_example_grad", split, {}, in_dims, 0, chunk_size)

    return per_example_grad_of


def ensemble(f: Function, members: Argnums = 0, *, keys: Argnums = (), chunk_size: int | None = None) -> Function:
    """One function over many members at once: stacked parameters, states or learning rates, shared data.

    Stack the members with `tree.stack([model.init(k)[0] for k in random.split(key, n)])`.

    Args:
        f: a pure function.
        members: the positions whose leaves carry the members on their first axis; other arguments are shared.
        keys: the positions that hold one key; it is split, so that each member draws for itself.
        chunk_size: at most so many members at once, to bound memory.

    Returns:
        A function whose results carry the members on their first axis.

    >>> scaled = ensemble(lambda w, x: w * x)
    >>> scaled(torch.tensor([1.0, 2.0, 3.0]), torch.tensor(10.0))
    tensor([10., 20., 30.])
    """

    def ensemble_of(*args: Any) -> Any:
        positions = counted("ensemble", "members", members, args)
        key_positions = counted("ensemble", "keys", keys, args)
        size = _leading_size(args, positions, "ensemble", "members")
        in_dims = tuple(0 if i in positions or i in key_positions else None for i in range(len(args)))
        split = [random.split(a, size) if i in key_positions else a for i, a in enumerate(args)]
        return mapped(f, "ensemble", split, {}, in_dims, 0, chunk_size)

    return ensemble_of


def _unsqueeze(leaf: torch.Tensor) -> torch.Tensor:
    return leaf.unsqueeze(0)


def _leading_size(args: Sequence[Any], positions: tuple[int, ...], verb: str, word: str) -> int:
    sizes: dict[int, str] = {}
    for i in positions:
        for path, leaf in tree.leaves_with_path(args[i]):
            if not isinstance(leaf, torch.Tensor) or leaf.ndim == 0:
                raise TypeError(
                    f"{verb} maps over the first axis of argument {i}, and its leaf {path!r} is {describe(leaf)}, "
                    f"which has none. Name the mapped positions with {word}=."
                )
            sizes.setdefault(leaf.shape[0], f"{leaf.shape[0]} in argument {i}" + (f" leaf {path!r}" if path else ""))
    if len(sizes) != 1:
        found = "; ".join(list(sizes.values())[:5]) or "no mapped tensor at all"
        raise ValueError(f"{verb} needs one common size on the first axis of its {word}, and found {found}.")
    return next(iter(sizes))

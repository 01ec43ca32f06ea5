"""`vmap` over any tree: which leaves are mapped, and along which axis."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet import _compat, tree
from funcnet.control.closure import visible
from funcnet.transforms._arguments import Function, describe, name
from funcnet.transforms._casts import casts

__all__ = ["mapped", "vmap"]


def vmap(f: Function, in_dims: Any = 0, out_dims: Any = 0, *, chunk_size: int | None = None) -> Function:
    """Map a function over an axis of its arguments, as one batched computation.

    Random draws inside take explicit keys: map over `random.split(key, n)` for a draw of its own for each element.
    Autocast belongs around the call: torch applies one that is entered inside `f` to fewer operations under `vmap`.

    Args:
        f: a pure function of pytrees.
        in_dims: the mapped axis of each argument (None: not mapped), or a pytree prefix of such. Keyword arguments are
            not mapped.
        out_dims: where the mapped axis goes in each result, or a pytree prefix of such. None for what is the same for
            every element, which may also be no tensor.
        chunk_size: at most so many elements at once, to bound memory.

    Raises:
        TypeError: a mapped leaf is no tensor or has no such axis, or a result is no tensor.
        ValueError: the mapped axes differ in size, or the prefix does not fit.

    >>> vmap(torch.dot, in_dims=(0, None))(torch.eye(2), torch.tensor([3.0, 4.0]))
    tensor([3., 4.])
    """

    @functools.wraps(f)
    def vmap_of(*args: Any, **kwargs: Any) -> Any:
        return mapped(f, "vmap", args, kwargs, in_dims, out_dims, chunk_size)

    return vmap_of


def mapped(
    f: Function, verb: str, args: Sequence[Any], kwargs: Any, in_dims: Any, out_dims: Any, chunk_size: int | None
) -> Any:
    """What `vmap(f, in_dims, out_dims)` returns; `verb` is what errors call it."""
    args = visible(tuple(args))
    leaves, treedef = tree.flatten(args)
    dims = in_dims if in_dims is None or isinstance(in_dims, int) else tuple(in_dims)
    flat_dims: list[int | None] = []
    _spread(dims, args, "in_dims", "", flat_dims)
    where = [i for i, dim in enumerate(flat_dims) if dim is not None]
    if not _one_size(leaves, flat_dims, where):
        _refuse(verb, f, args, flat_dims)
    rest: Any = None

    def flat(*tensors: Tensor) -> list[Tensor]:
        nonlocal rest
        values = list(leaves)
        for i, tensor in zip(where, tensors, strict=True):
            values[i] = tensor
        output = f(*tree.unflatten(treedef, values), **kwargs)
        results, outdef = tree.flatten(output)
        places: list[int | None] = []
        _spread(out_dims, output, "out_dims", "", places)
        _check_results(verb, f, output, results, places)
        # What is the same for every element needs no way through torch's vmap, which takes nothing but tensors.
        rest = outdef, places, [r if place is None else None for r, place in zip(results, places, strict=True)]
        return [r for r, place in zip(results, places, strict=True) if place is not None]

    run = torch.func.vmap(flat, in_dims=tuple(flat_dims[i] for i in where), chunk_size=chunk_size)
    with casts():
        given = iter(run(*(leaves[i] for i in where)))
    outdef, places, same = rest
    return tree.unflatten(
        outdef, [s if place is None else _moved(next(given), place) for s, place in zip(same, places, strict=True)]
    )


def _moved(tensor: Tensor, place: int) -> Tensor:
    return tensor if place == 0 else tensor.movedim(0, place)


def _spread(dims: Any, value: Any, what: str, path: str, found: list[int | None]) -> None:
    """One axis for each leaf, from a prefix of the tree."""
    if dims is None or isinstance(dims, int):
        found.extend([dims] * len(tree.leaves(value)))
        return
    if value is None:
        return
    node, mine = _compat.tree_node(value), _compat.tree_node(dims)
    children = [] if node is None else _compat.tree_children(node, value)
    theirs = {} if mine is None else dict(_compat.tree_children(mine, dims))
    if node is None or len(theirs) != len(children) or any(key not in theirs for key, _ in children):
        how = f"or one for each of its {len(children)} members" if node is not None else "and it is one leaf"
        raise ValueError(
            f"{what}{f' at {path!r}' if path else ''} is {dims!r}, and the value there is {describe(value)}: give one "
            f"axis for it (None: not mapped), {how}."
        )
    for key, child in children:
        _spread(theirs[key], child, what, f"{path}.{key}" if path else key, found)


def _one_size(leaves: Sequence[Any], dims: Sequence[int | None], where: Sequence[int]) -> bool:
    """Whether all mapped axes are there, and of one size."""
    sizes = set()
    for i in where:
        leaf, dim = leaves[i], dims[i] or 0
        if not isinstance(leaf, Tensor) or not -leaf.ndim <= dim < leaf.ndim:
            return False
        sizes.add(leaf.shape[dim])
    return len(sizes) == 1


def _refuse(verb: str, f: Function, args: Sequence[Any], dims: Sequence[int | None]) -> None:
    sizes: dict[int, str] = {}
    for (path, leaf), dim in zip(tree.leaves_with_path(args), dims, strict=True):
        position, _, rest = path.partition(".")
        where = f"argument {position}" + (f" leaf {rest!r}" if rest else "")
        if dim is None:
            continue
        if not isinstance(leaf, Tensor) or not -leaf.ndim <= dim < leaf.ndim:
            raise TypeError(
                f"{verb}({name(f)}) maps over axis {dim} of {where}, which is {describe(leaf)} and has none. Write "
                f"None in its place in in_dims to share it, or make it a tensor with that axis."
            )
        sizes.setdefault(leaf.shape[dim], f"{leaf.shape[dim]} in {where}")
    found = "; ".join(list(sizes.values())[:5]) or "no mapped axis at all"
    raise ValueError(f"{verb}({name(f)}) needs one common size of the mapped axes, and found {found}.")


def _check_results(verb: str, f: Function, output: Any, results: Sequence[Any], places: Sequence[int | None]) -> None:
    level = _compat.level()
    for i, (result, place) in enumerate(zip(results, places, strict=True)):
        if not isinstance(result, Tensor):
            if place is not None:
                share = ", or write None in its place in out_dims if it is the same for all" if verb == "vmap" else ""
                raise TypeError(
                    f"{verb}({name(f)}) puts the results of all elements together, and {_result(output, i)} is "
                    f"{describe(result)}. Return a tensor (torch.as_tensor){share}."
                )
        elif place is not None and not -result.ndim <= place + 1 <= result.ndim + 1:
            raise ValueError(
                f"{verb}({name(f)}) has out_dims {place} for {_result(output, i)}, which is {describe(result)}, and so "
                f"has places {-result.ndim - 1} to {result.ndim} for a new axis."
            )
        elif place is None and _compat.level_of(result) == level:
            raise ValueError(
                f"{verb}({name(f)}) has out_dims None for {_result(output, i)}, which differs from element to element. "
                f"Give the place of its new axis, as 0."
            )


def _result(output: Any, i: int) -> str:
    path = tree.paths(output)[i]
    return f"the result's leaf {path!r}" if path else "its result"

"""Names and tensors of equal blocks, from one of each block to one of all blocks and back."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["STAR", "stack_blocks", "unstack_blocks"]

STAR = "*"  # what the one child of a stacked container is called


def stack_blocks(values: Mapping[str, Tensor], *names: str) -> dict[str, Tensor]:
    """The tensors of equal blocks, by the names of an ordinary model, as `stacked` names and shapes them.

    `blocks.0.attn.weight`, `blocks.1.attn.weight` ... become one `blocks.*.attn.weight` with the blocks on its first
    axis; all others stay. So an ordinary checkpoint goes into a stacked model. Gradients and moments of optimizers, in
    dicts of the same names, are stacked alike.

    Args:
        values: tensors by dotted name: params, state or a `state_dict()`.
        *names: where the blocks are: `"blocks"` for `blocks.0`, `blocks.1` ..., or a name with `{}` where the number
            goes, as in `"encoder.layers.encoder_layer_{}"`. Empty for `0`, `1` ... themselves.

    Raises:
        KeyError: no block is there.
        ValueError: the blocks are not numbered from 0 on, or differ in names, shapes or dtypes.

    >>> values = {"blocks.0.bias": torch.tensor([1, 2]), "blocks.1.bias": torch.tensor([3, 4])}
    >>> stack_blocks(values, "blocks")["blocks.*.bias"].tolist()
    [[1, 2], [3, 4]]
    """
    found = dict(values)
    for name in names:
        found = _stacked(found, name)
    return found


def _stacked(values: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    number = re.compile(re.escape(_numbered(name)).replace(r"\{\}", r"(\d+)", 1) + r"\.(.+)", re.DOTALL)
    groups: dict[str, dict[int, Tensor]] = {}
    found: dict[str, Tensor] = {}
    numbers: set[int] = set()
    for key, value in values.items():
        match = number.fullmatch(key)
        if match is None:
            found[key] = value
            continue
        place = int(match[1])
        numbers.add(place)
        new = f"{_container(name)}{STAR}.{match[2]}"
        found.setdefault(new, value)  # in its place among the others
        groups.setdefault(new, {})[place] = value
    if not groups:
        raise KeyError(f"no name is of a block of {name!r}; the first names are {', '.join(map(repr, [*values][:3]))}.")
    for new, blocks in groups.items():
        if missing := [n for n in range(max(numbers) + 1) if n not in blocks]:
            raise ValueError(
                f"{new!r} has no tensor of block {missing[0]}, of {max(numbers) + 1}. Equal blocks have equal names."
            )
        rows = [blocks[n] for n in range(len(blocks))]
        for n, row in enumerate(rows):
            if (row.shape, row.dtype) != (rows[0].shape, rows[0].dtype):
                raise ValueError(
                    f"{new!r} has shape {tuple(row.shape)} and {row.dtype} in block {n}, and {tuple(rows[0].shape)} "
                    f"and {rows[0].dtype} in block 0. Only equal blocks can be stacked."
                )
        found[new] = torch.stack(rows)
    return found


def unstack_blocks(values: Mapping[str, Tensor], *names: str) -> dict[str, Tensor]:
    """The inverse of `stack_blocks`: one tensor for each block, by the names of an ordinary model.

    Args:
        values: tensors by dotted name, those of blocks with `*` in it.
        *names: as in `stack_blocks`, of the blocks that are not simply numbered; those that are need no name.

    Returns:
        A dict with views of the stacked tensors.

    Raises:
        KeyError: a name says where blocks are, and none are there.

    >>> unstack_blocks({"blocks.*.bias": torch.tensor([[1, 2], [3, 4]])})
    {'blocks.0.bias': tensor([1, 2]), 'blocks.1.bias': tensor([3, 4])}
    """
    patterns = {f"{_container(name)}{STAR}.": f"{_numbered(name)}." for name in names}
    for start in patterns:
        if not any(key.startswith(start) for key in values):
            raise KeyError(f"no name starts with {start!r}; the first are {', '.join(map(repr, [*values][:3]))}.")
    found = dict(values)
    while starred := next((key for key in found if STAR in key.split(".")), None):
        # The outermost first, and block by block: in the order of the ordinary model.
        start = starred[: f".{starred}".index(f".{STAR}.")] + f"{STAR}."
        blocks = {key.removeprefix(start): value for key, value in found.items() if key.startswith(start)}
        block = patterns.get(start, start.removesuffix(f"{STAR}.") + "{}.")
        count = len(next(iter(blocks.values())))
        ordered: dict[str, Tensor] = {}
        for key, value in found.items():
            if key == starred:
                for n in range(count):
                    ordered |= {block.replace("{}", str(n), 1) + rest: rows[n] for rest, rows in blocks.items()}
            elif not key.startswith(start):
                ordered[key] = value
        found = ordered
    return found


def _numbered(name: str) -> str:
    """The name of a block, with `{}` for its number."""
    return name if "{}" in name else f"{name}.{{}}" if name else "{}"


def _container(name: str) -> str:
    """What stands before the name of a block, with its dot."""
    head, dot, _ = _numbered(name).partition("{}")[0].rpartition(".")
    return head + dot

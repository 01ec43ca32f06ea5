"""`stacked`: equal blocks of a module as one, run by a scan, so that they are compiled once however many there are."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from funcnet import tree
from funcnet.stacking.child import Container, as_container, stack
from funcnet.stacking.equal import difference
from funcnet.stacking.names import STAR

__all__ = ["stacked"]

_BOOKKEEPING = frozenset(vars(nn.Module()))


def stacked(module: nn.Module, *names: str, remat: bool = False) -> nn.Module:
    """The module with equal blocks as one, whose tensors are theirs stacked: compiled once, however many there are.

    A container of the name `blocks` then holds one child, `*`, with parameters such as `blocks.*.attn.weight`, of
    shape `(number of blocks, ...)`. Calling it runs all blocks in turn by `scan`, as Haiku's `layer_stack` and Flax's
    `nn.scan` do. `nn.Sequential`, and code like `for block in self.blocks: x = block(x, mask)`, work as they are, under
    every transform; each block draws from a key of its own, and running statistics are stacked as well. Compile time
    does not grow with the number of blocks, and an optimizer meets fewer and larger tensors.

    What does not work: a result of each block, or another argument for each, since one argument goes from block to
    block, keeping structure, shapes and dtypes, and the others are the same for all; blocks by index, but for 0 and -1,
    the one child; `len` or `enumerate` of the container as depth, which see one child and cannot complain. `capture`
    and `perturb` name the whole (`"blocks.[*]"`) and nothing inside it.

    Args:
        module: left as it is. What is returned shares no tensor with it.
        *names: of the containers, `nn.Sequential` or `nn.ModuleList` or of a class made from them, whose children are
            equal blocks: of the same classes, with the same attributes and shapes. "" for the module itself.
        remat: whether the gradient computes each block again instead of keeping what is inside it.

    Returns:
        A module of the same class, for `Model` or for plain torch. `stack_blocks` and `unstack_blocks` translate
        params, state and checkpoints.

    Raises:
        AttributeError: there is no such submodule.
        TypeError: the submodule is no container.
        ValueError: blocks differ, or tensors are tied between them or with others; the first place is named.

    >>> import torch
    >>> from funcnet import Model, random
    >>> model = Model(lambda: stacked(nn.Sequential(*(nn.Linear(4, 4) for _ in range(12))), ""))
    >>> params, state = model.init(random.key(0))
    >>> {name: tuple(p.shape) for name, p in params.items()}
    {'*.weight': (12, 4, 4), '*.bias': (12, 4)}
    >>> model(params, state, torch.ones(2, 4)).shape
    torch.Size([2, 4])
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"stacked takes a module, not a {type(module).__name__}. Write stacked(module, 'blocks').")
    memo: dict[int, Any] = {}
    for name in names:
        container = _container(module, name)
        blocks = dict(container.named_children())
        if blocks:
            _refuse_unequal(name, blocks)
            _refuse_tied(module, name, blocks)
            one = stack([*blocks.values()], remat)
            memo |= {id(block): one for block in blocks.values()}
    copied = copy.deepcopy(module, memo)
    for name in names:
        container = copied.get_submodule(name)
        if container._modules:
            as_container(container, STAR)
    return copied


def _container(module: nn.Module, name: str) -> nn.Module:
    try:
        container = module.get_submodule(name)
    except AttributeError:
        kinds = (nn.Sequential, nn.ModuleList)
        known = [repr(path) for path, sub in module.named_modules() if isinstance(sub, kinds)]
        has = f"Its containers are {', '.join(known)}" if known else "It has no nn.Sequential or nn.ModuleList"
        raise AttributeError(f"{type(module).__name__} has no submodule {name!r} to stack. {has}.") from None
    if isinstance(container, Container):
        raise TypeError(f"{name!r} of {type(module).__name__} is stacked already.")
    if not isinstance(container, (nn.Sequential, nn.ModuleList)):
        raise TypeError(
            f"{name!r} of {type(module).__name__} is a {type(container).__name__}, and blocks are stacked in an "
            f"nn.Sequential or nn.ModuleList. Name the container of the blocks, not a block."
        )
    return container


def _at(*parts: str) -> str:
    return ".".join(filter(None, parts))


def _refuse_unequal(name: str, blocks: Mapping[str, nn.Module]) -> None:
    first, *others = blocks
    for other in others:
        found = difference(blocks[first], blocks[other])
        if found is not None:
            paths = _at(name, first, found.path), _at(name, other, found.path)
            raise ValueError(
                f"the blocks of {name!r} are not equal: {paths[0]} is {found.mine}, and {paths[1]} is {found.theirs}. "
                f"Only equal blocks can be stacked: put those that are into a container of their own."
            )


def _refuse_tied(module: nn.Module, name: str, blocks: Mapping[str, nn.Module]) -> None:
    owner: dict[int, tuple[str, str]] = {}
    inside: set[int] = set()
    for which, block in blocks.items():
        inside |= {id(sub) for sub in block.modules()}
        for path, tensor in _tensors(block, _at(name, which)):
            block_of, known = owner.setdefault(id(tensor), (which, path))
            if block_of != which:
                raise ValueError(
                    f"{path} and {known} are one tensor, and those of equal blocks are stacked: each needs its own. "
                    f"Hand what all blocks share to their forward as an argument."
                )
    for path, submodule in module.named_modules():
        if id(submodule) in inside:
            continue
        for at, tensor in _tensors(submodule, path, recurse=False):
            if id(tensor) in owner:
                raise ValueError(
                    f"{at} and {owner[id(tensor)][1]} are one tensor, and the second is to be stacked with those of "
                    f"the other blocks. Untie them, or leave {name!r} as it is."
                )


def _tensors(module: nn.Module, prefix: str, recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
    """The tensors that a module holds, tied ones at every place, with their paths."""
    for path, submodule in module.named_modules() if recurse else [("", module)]:
        plain = {key: value for key, value in vars(submodule).items() if key not in _BOOKKEEPING}
        for held in (submodule._parameters, submodule._buffers, plain):
            for at, leaf in tree.leaves_with_path(dict(held)):
                if isinstance(leaf, Tensor):
                    yield _at(prefix, path, at), leaf

"""The one child of a stacked container: the modules of a block, with the tensors of all, which runs them in turn."""

import copy
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from funcnet import _compat, tree
from funcnet.control import remat, scan
from funcnet.control.closure import ambient
from funcnet.control.staged import next_key
from funcnet.model import Model
from funcnet.pure import MissingKeyError, PureMode, Skeleton

__all__ = ["Container", "as_container", "stack"]

Call = Callable[[nn.Module, Any], Any]
"""One block on what the block before it returned."""


class Blocks:
    """The code of one block, how many there are, and whether their gradient computes them again."""

    __slots__ = ("count", "model", "remat", "skeleton")  # no __dict__, whose content would count as left by a call

    def __init__(self, template: nn.Module, count: int, remat: bool) -> None:
        """Take a block, of whose values no use is made."""
        self.count, self.remat = count, remat
        self.skeleton = Skeleton(template)
        self.model = Model.from_module(self.skeleton.template)[0]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Blocks":
        """Itself: it never changes."""
        return self

    def __reduce__(self) -> Any:
        """For pickle, by which torch saves modules: a pool of copies stays behind."""
        return Blocks, (self.skeleton.template, self.count, self.remat)

    def __eq__(self, other: object) -> bool:
        """Whether stacks are equal but for their blocks, which are compared as modules."""
        return isinstance(other, Blocks) and (self.count, self.remat) == (other.count, other.remat)

    def __hash__(self) -> int:
        """The hash of what is compared."""
        return hash((self.count, self.remat))

    def held(self, module: nn.Module) -> dict[str, Tensor]:
        """The stacked tensors that the child holds now, by their names in a block."""
        values: dict[str, Tensor] = {}
        for place in self.skeleton.places:
            value = getattr(module.get_submodule(place.owner), place.kind)[place.key]
            for name, leaf in zip(place.names, [value] if place.treedef is None else tree.leaves(value), strict=True):
                if name is not None:
                    values.setdefault(name, leaf)
        return values

    def put(self, module: nn.Module, values: Mapping[str, Tensor]) -> None:
        """Assign new stacked tensors to the attributes of the child, which is how a module says that it changed."""
        for place in self.skeleton.places:
            if not values.keys() & set(place.names):
                continue
            owner = getattr(module.get_submodule(place.owner), place.kind)
            if place.treedef is None:
                owner[place.key] = values[str(place.names[0])]
            else:
                leaves = zip(tree.leaves(owner[place.key]), place.names, strict=True)
                new = [leaf if name is None else values.get(name, leaf) for leaf, name in leaves]
                owner[place.key] = tree.unflatten(place.treedef, new)

    def run(self, module: nn.Module, x: Any, call: Call) -> Any:
        """All blocks in turn, as a scan of pure calls: inside a call of a `Model`."""
        # The step may close over no module and no leaf of a skeleton, whose tensors would be taken for what it reads.
        model, train, held = self.model, module.training, self.held(module)
        trainable = {leaf.name for leaf in self.skeleton.leaves.values() if leaf.trainable}
        mode = ambient()
        assert isinstance(mode, PureMode)  # who calls has looked
        # Under transforms a call cannot tell what it wrote; what runs more than once must return the same each time.
        graphing = _compat.graphing()
        lent = self.skeleton.written[train] if self.remat or graphing else frozenset()

        def step(x: Any, own: dict[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
            if graphing:  # what is handed from step to step may not be written, as a block may write its argument
                x = tree.map(torch.clone, x)
            params = {name: value for name, value in own.items() if name in trainable}
            state = {name: value for name, value in own.items() if name not in trainable}
            try:
                # Called by a method, since a block may write over what the block before it made, as in torch.
                out, new = model.apply(params, state, key=next_key(), train=train, method=lambda block: call(block, x))
            except MissingKeyError:
                raise mode.missing_key() from None  # to which the outer model adds where
            return out, {name: t for name, t in new.items() if name in lent or t is not state[name]}

        step.__name__ = self.skeleton.template.__class__.__name__  # by which errors name it
        out, new = scan(remat(step) if self.remat else step, x, held, length=self.count)
        self.put(module, new)
        return out

    def loop(self, module: nn.Module, x: Any, call: Call) -> Any:
        """All blocks in turn, as plain torch runs them: draws from its generator, statistics written in place."""
        rows = {name: value.unbind(0) for name, value in self.held(module).items()}
        for n in range(self.count):
            own = {name: row[n] for name, row in rows.items()}
            one = functools.partial(self._block, own, module.training, call, [])
            again = self.remat and torch.is_grad_enabled()
            x = checkpoint(one, x, use_reentrant=False) if again else one(x)
        return x

    def _block(self, own: Mapping[str, Tensor], train: bool, call: Call, ran: list[bool], x: Any) -> Any:
        if ran:  # for the second time, on the way back: what it writes has been written
            own = {n: value if self.skeleton.leaves[n].parameter else value.clone() for n, value in own.items()}
        ran.append(True)
        loan = self.skeleton.lend(train)
        loan.body.fill(own)
        out = call(loan.body.module, x)
        with torch.no_grad():
            for name, new in loan.body.changed(own).items():
                own[name].copy_(new)
        return out


class Stacked(nn.Module):
    """What makes a block's copy run all blocks."""

    _blocks: Blocks

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Hand the first argument from block to block; the others are the same for all."""
        blocks = self._blocks
        run = blocks.run if isinstance(ambient(), PureMode) else blocks.loop
        if args:
            x, *rest = args
            return run(self, x, lambda block, x: block(x, *rest, **kwargs))
        if not kwargs:
            raise TypeError(
                f"{self._get_name()} hand the first argument of their forward from block to block, and were called "
                f"with none."
            )
        first = next(iter(inspect.signature(super().forward).parameters))
        if first not in kwargs:
            raise TypeError(
                f"{self._get_name()} hand {first!r}, the first argument of their forward, from block to block, and "
                f"were called with {', '.join(map(repr, kwargs))} alone."
            )
        return run(self, kwargs[first], lambda block, x: block(**{**kwargs, first: x}))

    def _get_name(self) -> str:
        return f"{self._blocks.count} x {type(self).__name__}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As an object of the block's class, since the class itself has no name to be found by."""
        return _bare, (Stacked, type(self).__bases__[1]), self.__dict__


class Container(nn.Module):
    """What makes a container say that it holds one child."""

    def __getitem__(self, index: Any) -> nn.Module:
        """The one child, by 0 or -1."""
        (child,) = self._modules.values()
        assert isinstance(child, Stacked)
        if index not in (0, -1):
            raise IndexError(
                f"{type(self).__name__}[{index!r}]: its {child._blocks.count} equal blocks are stacked, and are one "
                f"child, [0]. Iterate over it, or leave it out of stacked(...)."
            )
        return child

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As above."""
        return _bare, (Container, type(self).__bases__[1]), self.__dict__


@functools.cache
def _with(mixin: Any, base: Any) -> Any:
    """A class's own subclass that runs, or shows, one child in the place of many."""
    return type(base.__name__, (mixin, base), {"__module__": base.__module__, "__qualname__": base.__qualname__})


def _become(mixin: type, module: nn.Module) -> None:
    base: Any = type(module)
    module.__class__ = _with(mixin, base)


def _bare(mixin: type, base: type) -> Any:
    cls = _with(mixin, base)
    return cls.__new__(cls)


def stack(modules: Sequence[nn.Module], remat: bool) -> nn.Module:
    """A copy of the first block with the tensors of all, which must be equal but for these, on a new first axis."""
    blocks = Blocks(modules[0], len(modules), remat)
    held = [blocks.held(module) for module in modules]
    memo: dict[int, Any] = {}
    for name, tensor in held[0].items():
        value = torch.stack([tensors[name].detach() for tensors in held])
        leaf = blocks.skeleton.leaves[name]
        memo[id(tensor)] = nn.Parameter(value, requires_grad=leaf.trainable) if leaf.parameter else value
    child = copy.deepcopy(modules[0], memo)
    _become(Stacked, child)
    vars(child)["_blocks"] = blocks
    return child


def as_container(container: nn.Module, name: str) -> None:
    """Leave one of a container's children, which are one and the same, under a name."""
    container._modules = {name: next(iter(container._modules.values()))}
    _become(Container, container)

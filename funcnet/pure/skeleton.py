"""A module without storage: the places where its tensors go, and copies to put them in for one call each.

Every call borrows a copy of its own, so neither two threads nor a call within a call see each other's tensors, and
`train` picks among copies instead of flipping a flag. A copy holds no memory but its Python objects.
"""

import copy
import types
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter, itemgetter, methodcaller
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from funcnet import _compat, tree
from funcnet.pure.adaptive import adaptive_log_softmax
from funcnet.pure.aside import as_torch_made_it, run_aside
from funcnet.pure.attributes import Attributes
from funcnet.pure.inert import Line, inert
from funcnet.pure.inference import attention_forward
from funcnet.pure.normalization import cumulative_batch_norm
from funcnet.pure.unfit import refuse_lazy, refuse_scripted

__all__ = ["Body", "Leaf", "Skeleton"]


class Leaf(NamedTuple):
    """One tensor of a module, which has one name however often it is tied."""

    name: str
    trainable: bool  # in params; all others are in state
    parameter: bool
    like: Tensor  # shape and dtype, on the meta device


class Place(NamedTuple):
    """An attribute that holds a tensor, or a tree of them."""

    owner: str  # the submodule's path
    kind: str  # which of its dicts: "_parameters", "_buffers" or "__dict__"
    key: str
    names: tuple[str | None, ...]  # a leaf's name for each leaf of the attribute; None for what is no tensor
    constants: tuple[Any, ...]
    treedef: tree.TreeDef | None  # None: the attribute is the tensor itself


_shape, _is_floating = attrgetter("shape"), methodcaller("is_floating_point")  # which `map` calls without Python
_KINDS = ("_parameters", "_buffers", "__dict__")
_NO_TENSORS = frozenset(vars(nn.Module()))  # a module's own bookkeeping, its dict of parameters among it


def _places(module: nn.Module) -> tuple[dict[str, Tensor], list[Place]]:
    """The distinct tensors of a module by first name, in the order of `named_parameters`, and all their places."""
    names: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    places = []
    owners = list(module.named_modules())
    for kind in _KINDS:
        for owner, submodule in owners:
            for key, value in getattr(submodule, kind).items():
                if kind == "__dict__" and key in _NO_TENSORS:
                    continue
                leaves = [("", value)] if isinstance(value, Tensor) else tree.leaves_with_path(value)
                if not any(isinstance(leaf, Tensor) for _, leaf in leaves):
                    continue
                mine: list[str | None] = []
                for path, leaf in leaves:
                    if not isinstance(leaf, Tensor):
                        mine.append(None)
                        continue
                    name = ".".join(part for part in (owner, key, path) if part)
                    if names.setdefault(id(leaf), name) == name and tensors.setdefault(name, leaf) is not leaf:
                        raise ValueError(
                            f"two tensors of {type(module).__name__} have the one name {name!r}. Rename a key of "
                            f"{'.'.join(filter(None, (owner, key)))!r}, so that no key has a dot."
                        )
                    mine.append(names[id(leaf)])
                constants = tuple(None if isinstance(leaf, Tensor) else leaf for _, leaf in leaves)
                treedef = None if isinstance(value, Tensor) else tree.structure(value)
                places.append(Place(owner, kind, key, tuple(mine), constants, treedef))
    return tensors, places


class Body:
    """One copy of the module, whose places can be filled."""

    def __init__(self, module: nn.Module, places: list[Place], harmless: bool = False) -> None:
        """Take a copy of the skeleton's module, and whether a call of it writes into nothing but its buffers."""
        self.module = module
        self.paths = {id(submodule): path for path, submodule in module.named_modules()}
        self._direct: list[tuple[dict[str, Any], str, str, Any]] = []
        self._trees: list[tuple[dict[str, Any], Place, tree.TreeDef, Any]] = []
        self.line = Line(module) if inert(module) else None
        for place in places:
            submodule = module.get_submodule(place.owner)
            owner = getattr(submodule, place.kind)
            if place.treedef is None:
                name = place.names[0]
                assert name is not None  # the attribute is a tensor
                self._direct.append((owner, place.key, name, owner[place.key]))
                if self.line is not None and place.kind != "__dict__":  # where it would lie already, and be of no use
                    self.line.place(submodule, place.key, name)
            else:
                self._trees.append((owner, place, place.treedef, owner[place.key]))
        self._attributes = Attributes(module, _NO_TENSORS)
        self.harmless = harmless

    def fill(self, values: Mapping[str, Tensor]) -> None:
        """Put tensors in, by name."""
        for owner, key, name, _ in self._direct:
            owner[key] = values[name]
        for owner, place, treedef, _ in self._trees:
            leaves = [c if name is None else values[name] for name, c in zip(place.names, place.constants, strict=True)]
            owner[place.key] = tree.unflatten(treedef, leaves)

    def held(self) -> list[Any]:
        """What is in the places now."""
        places = [(owner, key) for owner, key, _, _ in self._direct]
        places += [(owner, place.key) for owner, place, _, _ in self._trees]
        return [owner.get(key) for owner, key in places]

    def put(self, held: Sequence[Any]) -> None:
        """Put back what was in the places."""
        values = iter(held)
        for owner, key, _, _ in self._direct:
            owner[key] = next(values)
        for owner, place, _, _ in self._trees:
            owner[place.key] = next(values)

    def changed(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that the call replaced by assigning to their attribute, or to their place in a list or dict."""
        now = [(name, new) for owner, key, name, _ in self._direct if (new := owner.get(key)) is not values[name]]
        for owner, place, treedef, _ in self._trees:
            leaves, found = tree.flatten(owner.get(place.key))
            if found == treedef:
                now += [(name, leaf) for name, leaf in zip(place.names, leaves, strict=True) if name is not None]
        return {name: value for name, value in now if value is not values[name] and isinstance(value, Tensor)}

    def clear(self, traceless: bool) -> bool:
        """Take the tensors out again, and whatever else the call left; False if the body is of no more use."""
        for owner, key, _, empty in self._direct:
            owner[key] = empty
        for owner, place, _, empty in self._trees:
            owner[place.key] = empty
        return traceless or self._attributes.restore()


class Loan:
    """A body in use: by a call, and by whatever runs a part of it again later. It goes back with the last of them."""

    def __init__(self, body: Body, free: list[Body]) -> None:
        """Take the body, and the pool that it belongs to."""
        self.body, self._free = body, free
        self.traceless = False  # whether no code but that of harmless modules runs
        self.cleared = False  # whether the tensors have been taken out already

    def __del__(self) -> None:
        """Give the body back, if it is of any more use."""
        if self.cleared or self.body.clear(self.traceless):
            self._free.append(self.body)


class Skeleton:
    """The names, shapes and dtypes of a module's tensors, and its code."""

    def __init__(self, module: nn.Module) -> None:
        """Take the skeleton of a module, which is left as it is."""
        refuse_scripted(module)
        tensors, self.places = _places(module)
        refuse_lazy(tensors)
        # Handing deepcopy the copies of the tensors beforehand makes it copy no storage.
        memo: dict[int, Any] = {id(t): _on_meta(t) for t in tensors.values()}
        try:
            self.template = copy.deepcopy(module, memo)
        except (TypeError, RuntimeError, NotImplementedError) as error:
            raise _uncopyable(module, memo, error) from error
        owners = {name: (place, module.get_submodule(place.owner)) for place in self.places for name in place.names}
        self.leaves: dict[str, Leaf] = {}
        for name, tensor in tensors.items():
            parameter = isinstance(tensor, nn.Parameter)
            trainable = parameter and tensor.requires_grad
            self.leaves[name] = Leaf(name, trainable, parameter, memo[id(tensor)])
        names = list(self.leaves)
        self._in_order: Callable[[Mapping[str, Tensor]], Sequence[Tensor]] = (
            itemgetter(*names) if names[1:] else lambda values: [values[name] for name in names]  # alone it comes bare
        )
        self._checks: tuple[Callable[..., bool], ...] = ()
        self._shapes = [leaf.like.shape for leaf in self.leaves.values()]
        self._floating = [leaf.like.is_floating_point() for leaf in self.leaves.values()]
        # Buffers are lent as copies, since their module may write them in place; but not the statistics that only
        # F.batch_norm and F.instance_norm write, which the mode sees, nor their count, which evaluation leaves alone.
        normal = {name: place.key for name, (place, owner) in owners.items() if isinstance(owner, _NormBase)}
        statistics = {name for name, key in normal.items() if key in ("running_mean", "running_var")}
        lent = [name for name, leaf in self.leaves.items() if not leaf.parameter and name not in statistics]
        self.lent = {True: lent, False: [name for name in lent if name not in normal]}
        # What a call may give new values to.
        self.written = {True: frozenset(lent) | statistics, False: frozenset(self.lent[False])}
        self._free: dict[bool, list[Body]] = {True: [], False: []}

    def fits(self, values: Mapping[str, Tensor]) -> bool:
        """Whether these are tensors of the right names, shapes and kinds."""
        try:
            own = self._in_order(values)
            if len(values) != len(own):
                return False
            plain = _compat.plain()
            if plain and any(check(*own) for check in self._checks):
                return True
            fits = list(map(_shape, own)) == self._shapes and list(map(_is_floating, own)) == self._floating
        except (KeyError, AttributeError):
            return False
        if fits and plain and (check := _compat.guards(own)) is not None:
            # One for tensors that a gradient is asked of and one for others. Threads may lose each other's.
            self._checks = (check, *self._checks[:1])
        return fits

    def lend(self, train: bool) -> "Loan":
        """Borrow a copy of the module in train or evaluation mode."""
        free = self._free[train]
        try:
            body = free.pop()
        except IndexError:
            module = self._copy()
            module.train(train)  # a module's own `train` may forget to return it
            body = Body(module, self.places, _specialize(module))
        return Loan(body, free)

    def _copy(self) -> nn.Module:
        # Meta tensors hold nothing and are never written: all copies share them, which also works while tracing.
        return copy.deepcopy(self.template, {id(leaf.like): leaf.like for leaf in self.leaves.values()})

    def take(self, module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The params and state of a module of the same construction, sharing its memory."""
        tensors, _ = _places(module)
        params = {name: tensors[name].detach() for name, leaf in self.leaves.items() if leaf.trainable}
        state = {name: tensors[name].detach() for name, leaf in self.leaves.items() if not leaf.trainable}
        return params, state

    def build(self, values: Mapping[str, Tensor]) -> nn.Module:
        """A real module of its own that holds copies of these tensors."""
        module = self._copy()
        own: dict[str, Tensor] = {}
        for name, leaf in self.leaves.items():
            value = values[name].detach().clone()
            own[name] = nn.Parameter(value, requires_grad=leaf.trainable) if leaf.parameter else value
        Body(module, self.places).fill(own)
        return module


def _specialize(module: nn.Module) -> bool:
    """Give the submodules a forward of their own that read values in Python, look for function modes, or need none.

    Returns:
        Whether all of them are torch's own, and write into nothing but their buffers.
    """
    torchs = [submodule for submodule in module.modules() if as_torch_made_it(submodule)]
    for submodule in module.modules():
        if isinstance(submodule, _BatchNorm) and submodule.momentum is None:
            submodule.forward = types.MethodType(cumulative_batch_norm, submodule)  # type: ignore[method-assign]  # torch's way to override one instance
        elif type(submodule) is nn.AdaptiveLogSoftmaxWithLoss:
            submodule.forward = types.MethodType(adaptive_log_softmax, submodule)  # type: ignore[method-assign]  # likewise
        elif forward := attention_forward(submodule):
            submodule.forward = forward
    return not inert(module) and run_aside(module, torchs)


def _on_meta(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor.detach(), device="meta")
    return nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _uncopyable(module: nn.Module, memo: dict[int, Any], error: Exception) -> TypeError:
    """The error of a module that deepcopy refuses, with the attribute that it fails on."""
    for owner, submodule in module.named_modules():
        for key, value in vars(submodule).items():
            try:
                if key not in _NO_TENSORS:
                    copy.deepcopy(value, dict(memo))
            except (TypeError, RuntimeError, NotImplementedError):
                return TypeError(
                    f"attribute {'.'.join(filter(None, (owner, key)))!r} of {type(module).__name__} is a "
                    f"{type(value).__name__} that cannot be copied ({error}), and every call runs on a copy of the "
                    f"module. Keep it outside the module, or give it a __deepcopy__ that returns itself."
                )
    return TypeError(f"{type(module).__name__} cannot be copied ({error}), and every call runs on a copy of it.")

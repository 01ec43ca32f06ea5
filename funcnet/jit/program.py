"""One compiled graph: what it was compiled for, and how a call goes through it."""

import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import _compat, tree
from funcnet.jit.compiler import compile_flat
from funcnet.jit.donation import check_separate, poison_class
from funcnet.jit.layout import make_builder
from funcnet.jit.sealed import Sealed
from funcnet.jit.signature import Arguments, Signature, Sizes, Static
from funcnet.pure.packing import Known

__all__ = ["Program"]

CUDA_GRAPH_MODES = ("reduce-overhead", "max-autotune")

_mark_step_begin: Callable[[], None] = torch.compiler.cudagraph_mark_step_begin  # torch leaves it unannotated


class Call(NamedTuple):
    """A call that matches a program: its leaves, and the addresses of the memory it donates."""

    leaves: list[Any]
    addresses: frozenset[int]


class Last(NamedTuple):
    """What the last call returned in donated memory, and where that lies."""

    results: list[weakref.ref[Tensor]]
    addresses: frozenset[int]


class Program:
    """A compiled graph for one signature, and the plan by which its results are put together."""

    def __init__(
        self,
        call: Callable[..., Any],
        arguments: Arguments,
        donated_arguments: Sequence[int],
        *,
        name: str,
        backend: str | Callable[..., Any],
        mode: str | None,
    ) -> None:
        """Trace and compile `call` for arguments like these."""
        self.signature = Signature(arguments)
        self.name = name
        self._call = call
        tensors = self.signature.tensors
        _refuse_arguments(name, arguments)
        constants = {i: leaf for i, leaf in enumerate(arguments.leaves) if i not in set(tensors)}
        self._static_leaves = {i: leaf.known if isinstance(leaf, Sizes) else leaf for i, leaf in constants.items()}
        donated = [i for i in tensors if arguments.owners[i] in donated_arguments]
        self._check_separate(arguments.leaves, donated)
        self._candidates = [(k, [i for i in donated if arguments.owners[i] == k]) for k in donated_arguments]

        def check(captured: list[Tensor]) -> None:
            self.signature.close_over(captured)
            self._check_separate(arguments.leaves, donated)

        given = [arguments.leaves[i] for i in tensors]
        self._lazy = any(t.is_conj() or t.is_neg() for t in given)
        self.compiled = compile_flat(
            self._flat,
            _in_memory(given) if self._lazy else given,
            name=name,
            backend=backend,
            mode=mode,
            static=[n for n, i in enumerate(tensors) if i in donated],
            check=check,
        )
        self.donated = [i for i in donated if i in self._pairs]
        self._others = [i for i in range(len(arguments.leaves)) if i not in set(self.donated)]
        self._poison = [poison_class(name, arguments.paths[i]) for i in self.donated]
        self._last: Last | None = None
        self._aliases: list[int] | None = None
        self._build = make_builder(self._outdef)
        cuda = any(arguments.leaves[i].device.type == "cuda" for i in tensors)
        self._graphed = cuda and mode in CUDA_GRAPH_MODES
        if unused := [arguments.paths[i] for i in donated if i not in self._pairs]:
            warnings.warn(
                f"{name} donates {', '.join(unused[:5])}, and returns nothing of that shape and dtype to take the "
                "memory: "
                f"these stay as they are. Donate only what comes back changed.",
                stacklevel=4,
            )
        del self._candidates, self._static_leaves

    # -- tracing

    def _flat(self, *tensors: Tensor) -> list[Tensor]:
        """The function over flat tensors, with the results written back into the donated ones."""
        leaves = dict(zip(self.signature.tensors, tensors, strict=True)) | self._static_leaves
        values = tree.unflatten(self.signature.treedef, [leaves[i] for i in range(len(leaves))])
        with Sealed(self.name):
            output = self._call(*values)
        results, self._outdef = tree.flatten(output)
        results = [r.constant() if isinstance(r, Known) else r for r in results]
        self._pairs = self._pair(output, results, leaves)
        sources = {out: i for i, out in self._pairs.items()}
        # What a result shares with an input must be copied out before the input is overwritten, and a result that is
        # an input must not be a second name for the caller's memory.
        results = [
            r.clone() if isinstance(r, Tensor) and self._must_copy(r, leaves.get(sources.get(n, -1)), tensors) else r
            for n, r in enumerate(results)
        ]
        returned: list[Tensor] = []
        self._plan: list[tuple[str, Any]] = []
        for n, result in enumerate(results):
            if n in sources:
                target = leaves[sources[n]]
                if result is not target:
                    target.copy_(result)
                self._plan.append(("donated", sources[n]))
            elif isinstance(result, Tensor):
                self._plan.append(("returned", len(returned)))
                # Two results of one memory could not be donated apart from each other.
                again = any(_compat.same_storage(result, t) for t in returned)
                returned.append(result.clone() if again else result.detach())
            else:
                self._plan.append(("constant", result))
        return returned

    @staticmethod
    def _must_copy(result: Tensor, own: Any, inputs: Sequence[Tensor]) -> bool:
        return result is not own and any(_compat.same_storage(result, t) for t in inputs)

    def _pair(self, output: Any, results: list[Any], leaves: dict[int, Any]) -> dict[int, int]:
        """Which result takes the memory of which donated leaf: by place where a subtree matches, else by kind."""
        pairs: dict[int, int] = {}
        taken: set[int] = set()
        for position, mine in self._candidates:
            want = self.signature.treedef.children[position]
            for start, definition in _subtrees(self._outdef):
                span = range(start, start + definition.num_leaves)
                if (
                    definition == want
                    and len(span) == len(mine)
                    and not taken & set(span)
                    and all(_alike(leaves[i], results[n]) for i, n in zip(mine, span, strict=True))
                ):
                    pairs |= dict(zip(mine, span, strict=True))
                    taken |= set(span)
                    break
        for _, mine in self._candidates:
            for i in mine:
                if i not in pairs:
                    n = next((n for n, r in enumerate(results) if n not in taken and _alike(leaves[i], r)), None)
                    if n is not None:
                        pairs[i] = n
                        taken.add(n)
        return pairs

    # -- calling

    def match(self, values: tuple[Any, ...]) -> Call | None:
        """The leaves of a call, or None where this program is not made for it."""
        leaves = self.signature.leaves(values)
        if leaves is None:
            return None
        if not self.signature.matches(leaves):
            return None
        if not self.donated:
            return Call(leaves, frozenset())
        # A training loop hands back the very objects that the last call returned, whose memory is known.
        last = self._last
        known = last is not None and all(leaves[i] is ref() for i, ref in zip(self.donated, last.results, strict=True))
        if known and last is not None:
            call = Call(leaves, last.addresses)
        else:
            call = Call(leaves, frozenset(leaves[i].untyped_storage().data_ptr() for i in self.donated) - {0})
        if not known or any(
            isinstance(leaf := leaves[i], Tensor) and leaf.untyped_storage().data_ptr() in call.addresses
            for i in self._others
        ):
            self._check_separate(leaves, self.donated)
        return call

    def _check_separate(self, leaves: list[Any], donated: list[int]) -> None:
        if donated:
            mine = set(donated)
            others = [i for i in self.signature.tensors if i not in mine]
            # What the function closed over is an argument as well, without a place in the caller's trees.
            hidden = range(len(leaves), len(leaves) + len(self.signature.captured))
            paths = [*self.signature.paths, *(f"a tensor that {self.name} closes over" for _ in hidden)]
            check_separate(self.name, paths, [*leaves, *self.signature.captured], donated, [*others, *hidden])

    def run(self, call: Call) -> Any:
        """Run the graph on a matched call."""
        leaves = call.leaves
        if self._graphed:
            _mark_step_begin()
        if self.signature.captured:
            self._check_captured()
        inputs = [leaves[i] for i in self.signature.tensors]
        if self._lazy:
            inputs = _in_memory(inputs)
        fresh = {i: leaves[i].detach() for i in self.donated}  # before anything is written: one may be donated already
        returned = self.compiled(*inputs, *self.signature.captured)
        if self._graphed:  # the graph's own memory is written again by the next replay
            returned = [t.clone() for t in returned]
        elif self.signature.captured:
            returned = self._own(returned)
        for i, poison in zip(self.donated, self._poison, strict=True):
            leaves[i].__class__ = poison
        self._last = Last([weakref.ref(t) for t in fresh.values()], call.addresses)
        results = [
            fresh[what] if how == "donated" else returned[what] if how == "returned" else what
            for how, what in self._plan
        ]
        return self._build(iter(results))

    def _check_captured(self) -> None:
        """Raise where a gradient of what the function closes over would be lost."""
        if torch.is_grad_enabled() and (wants := [t for t in self.signature.captured if t.requires_grad]):
            raise TypeError(
                f"{self.name} is jitted and closes over a tensor of shape {tuple(wants[0].shape)} that requires grad, "
                f"and no gradient flows through a compiled graph: take it inside, as in jit(value_and_grad(loss)), "
                f"and close over a detached tensor; or call it under torch.no_grad()."
            )

    def _own(self, returned: Sequence[Tensor]) -> Sequence[Tensor]:
        """The results, none of which is what the function closes over: donating it would overwrite that."""
        if self._aliases is None:  # a graph does the same in every run
            self._aliases = [
                n for n, t in enumerate(returned) if any(_compat.same_storage(t, c) for c in self.signature.captured)
            ]
        return [t.clone() if n in self._aliases else t for n, t in enumerate(returned)] if self._aliases else returned


def _in_memory(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors with their values as they lie in memory, which is what a kernel reads."""
    return [t.resolve_conj().resolve_neg() for t in tensors]


def _subtrees(definition: tree.TreeDef) -> list[tuple[int, tree.TreeDef]]:
    """The whole output and its top-level members, each with the position of its first leaf."""
    found, start = [(0, definition)], 0
    for child in definition.children:
        found.append((start, child))
        start += child.num_leaves
    return found


def _alike(leaf: Any, result: Any) -> bool:
    return (
        isinstance(leaf, Tensor)
        and isinstance(result, Tensor)
        and (leaf.shape, leaf.dtype, leaf.device) == (result.shape, result.dtype, result.device)
    )


def _refuse_arguments(name: str, arguments: Arguments) -> None:
    for path, leaf in zip(arguments.paths, arguments.leaves, strict=True):
        if isinstance(leaf, Tensor) and leaf.requires_grad:
            raise TypeError(
                f"{path} requires grad, and no gradient flows through {name}, which is jitted: take it inside, as in "
                f"jit(value_and_grad(loss)), and pass {path}.detach()."
            )
        if isinstance(leaf, Static) and any(hasattr(member, "__array__") for member in tree.leaves(leaf.value)):
            raise TypeError(
                f"{path} is static and holds an array, whose values would be frozen into the graph of {name}. Leave "
                f"{path} out of static=: tensors are arguments that may change."
            )
        members = fields(leaf) if is_dataclass(leaf) and not isinstance(leaf, type) else ()
        if any(isinstance(getattr(leaf, member.name, None), Tensor) for member in members):
            raise TypeError(
                f"{path} is a {type(leaf).__name__} that holds tensors, and is no tree, so they would be frozen into "
                f"the graph of {name}. Decorate the class with @tree.register_dataclass."
            )
        if hasattr(leaf, "__array__") and not isinstance(leaf, Tensor):
            raise TypeError(
                f"{path} is a {type(leaf).__name__}, whose values would be frozen into the graph of {name}. Pass "
                f"torch.as_tensor(...) instead."
            )

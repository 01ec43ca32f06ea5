"""A step and its pullback taken apart: what is computed on the way forth, what of it is kept, and the way back.

A scan's pullback may run each step again from its carry, at the cost of one more forward pass. Where a first derivative
is all that is asked, the graph of a step and its pullback together shows what the way back reads of the way forth. That
is kept for each step, unless elementwise work makes it from what is kept anyhow, or from what the step was given along
the axis of the scan or shares with all others: weights are never stacked.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from operator import getitem
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import Node, map_arg

from funcnet import _compat
from funcnet.control.primitive import Flat, filled, inexact, parts

__all__ = ["Cut", "cut_apart"]


@dataclass(frozen=True)
class Cut:
    """A step in two parts, as flat functions, for one choice of what is differentiated."""

    forth: Flat  # (*carry, *x, *consts) -> (*carry, *y, *kept)
    back: Flat  # (*kept, *x, *consts, *carry_ct, *y_ct) -> cotangents at `places`
    kept: int
    moving: list[int]  # the places in the carry that a derivative goes through
    places: list[int]  # of the inputs that have cotangents: those of the carry, the consts, the x
    ys: dict[int, Tensor]  # which ys have cotangents, and an example of each
    read: list[bool]  # which x the way back reads


def cut_apart(
    body: Flat, example: Sequence[Tensor], counts: tuple[int, int], moving: list[int], others: list[int]
) -> Cut | None:
    """Take a step apart, if its graph allows.

    Args:
        body: `(*carry, *x, *consts) -> (*carry, *y)`, which reads no tensor but its arguments.
        example: arguments of their kind.
        counts: how many of them are carry, and how many x.
        moving: the places of the carry that a derivative goes through.
        others: the places of other arguments with a cotangent, in the order in which they are wanted.
    """
    carry, xs = counts
    places = [*moving, *others]
    kinds = _compat.joint_results(body, example)
    ys = {n - carry: kinds[n] for n in inexact(kinds) if n >= carry}
    outs = [*moving, *(carry + n for n in ys)]

    def joint(*args: Tensor) -> list[Tensor]:
        inputs, cotangents = args[: len(example)], args[len(example) :]

        def part(*some: Tensor) -> Any:
            results = tuple(body(*filled(inputs, places, some)))
            return tuple(results[n] for n in outs), results

        primals = tuple(inputs[n] for n in places)
        # With has_aux torch returns three, which its annotation leaves out.
        _, pull, results = torch.func.vjp(part, *primals, has_aux=True)  # type: ignore[misc]
        return [*results, *pull(tuple(cotangents))]

    if not outs or not places:
        return None
    graph = _compat.joint_graph(joint, [*example, *(kinds[n] for n in outs)])
    if graph is None:
        return None
    given = graph.find_nodes(op="placeholder", sort=True)
    inputs, after = given[: len(example)], given[len(example) :]
    (results,) = graph.output_node().args
    assert isinstance(results, (list, tuple))
    forth, back = list(results[: len(kinds)]), list(results[len(kinds) :])
    kept = _Keep(set(inputs[:carry]), after).choose(back)
    shared = inputs[carry:]
    orders = [_order(node) for node in kept]
    first, second = _Program(inputs, [*forth, *kept]), _Program([*kept, *shared, *after], back)

    def on_the_way_forth(*args: Tensor) -> list[Tensor]:
        results, stored = parts(first(*args), len(forth), len(kept))
        # In the order in which they lie in memory, since a loop stores what it collects contiguously.
        return [*results, *(t.permute(order) for t, order in zip(stored, orders, strict=True))]

    def on_the_way_back(*args: Tensor) -> list[Tensor]:
        stored, rest = args[: len(kept)], args[len(kept) :]
        return second(*(t.permute(_inverse(order)) for t, order in zip(stored, orders, strict=True)), *rest)

    return Cut(
        on_the_way_forth, on_the_way_back, len(kept), moving, places, ys, second.reads(inputs[carry : carry + xs])
    )


def _order(node: Node) -> list[int]:
    """The axes of a node's value, from that of the largest stride to that of the smallest."""
    strides = node.meta["val"].stride()
    return sorted(range(len(strides)), key=lambda axis: -strides[axis])


def _inverse(order: Sequence[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)


def _behind(nodes: Sequence[Node], known: set[Node]) -> set[Node]:
    """The nodes that some are computed from, they among them, up to those whose values are known."""
    found: set[Node] = set()
    met = list(nodes)
    while met:
        node = met.pop()
        if node not in found:
            found.add(node)
            met += [] if node in known else node.all_input_nodes
    return found


class _Program:
    """Some nodes of a graph as a function: from the values of some to those of others."""

    def __init__(self, inputs: Sequence[Node], outputs: Sequence[Node]) -> None:
        self._inputs, self._outputs = inputs, outputs
        known = set(inputs)
        self._needed = _behind(outputs, known)
        order = list(outputs[0].graph.nodes) if outputs else []
        self._nodes = [node for node in order if node in self._needed and node not in known]

    def __call__(self, *args: Tensor) -> list[Tensor]:
        env: dict[Node, Any] = dict(zip(self._inputs, args, strict=True))
        with ExitStack() as stack:
            _compat.enter_autocast(stack, (None, None))  # its casts are in the graph
            for node in self._nodes:
                target: Any = node.target
                env[node] = target(*map_arg(node.args, env.__getitem__), **map_arg(node.kwargs, env.__getitem__))
        return [env[node] for node in self._outputs]

    def reads(self, nodes: Sequence[Node]) -> list[bool]:
        """Which of some inputs it reads."""
        return [node in self._needed for node in nodes]


class _Keep:
    """The choice of what is kept."""

    def __init__(self, carry: set[Node], cotangents: Sequence[Node]) -> None:
        self.carry = carry
        self.late = dict.fromkeys(cotangents)  # what depends on a cotangent, and can be known on the way back only
        self.kept: dict[Node, None] = {}  # in order

    def choose(self, back: Sequence[Node]) -> list[Node]:
        """What is kept for these results of the way back."""
        for node in (node for out in back[:1] for node in out.graph.nodes):
            if any(source in self.late for source in node.all_input_nodes):
                self.late[node] = None
        read: dict[Node, None] = {}
        needed = _behind(back, set())
        for node in self.late:
            if node in needed:
                read.update((source, None) for source in node.all_input_nodes if source not in self.late)
        read.update((node, None) for node in back if node not in self.late)
        read = {base: None for node in read for base in self._parts(node)}
        for node in read:
            if not self._cheap(node):
                self.kept[node] = None
        for node in read:
            missing = [leaf for leaf in self._leaves(node) if leaf not in self.kept]
            # What costs as much to keep is kept itself, rather than what it would be made from.
            if sum(map(_bytes, missing)) < _bytes(node):
                self.kept.update(dict.fromkeys(missing))
            else:
                self.kept[node] = None
        return [*self.kept]

    def _cheap(self, node: Node) -> bool:
        """Whether a value can be had again on the way back for little, given what it is made from."""
        if node.op == "placeholder":
            return node not in self.carry
        source = node.args[0] if node.target is getitem else node
        assert isinstance(source, Node)
        return _compat.is_cheap(source)

    def _parts(self, node: Node) -> list[Node]:
        """The tensors whose views a value is."""
        while _compat.is_view(node) or (node.target is getitem and _compat.is_view(node.args[0])):  # type: ignore[arg-type]  # getitem's first is a node
            node = node.all_input_nodes[0]
        return [node]

    def _leaves(self, node: Node) -> list[Node]:
        """What must be kept to have a value again."""
        found: dict[Node, None] = {}
        met, seen = [node], {node}
        while met:
            one = met.pop()
            if one in self.kept or not self._cheap(one):
                found[one] = None
                continue
            for source in one.all_input_nodes:
                if source not in seen:
                    seen.add(source)
                    met.append(source)
        return [*found]


def _bytes(node: Node) -> int:
    value = node.meta["val"]
    return int(value.numel() * value.element_size())

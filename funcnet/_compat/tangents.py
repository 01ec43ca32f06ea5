"""Tangents that are zero by construction, which a graph need not multiply.

Forward mode gives torch a tangent of zeros for whatever is not differentiated, such as the images of a batch, and torch
multiplies it as if it were any other: of the five large products in a Hessian-vector product of a perceptron two are by
such zeros. Zeros that a program writes itself, whose product with infinity is NaN, are left alone: they come through
Python, which says whether memory is pinned, and torch's own tangents do not.
"""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet._compat.joint import is_view

__all__ = ["DECOMPOSITION", "drop_zero_tangents"]

_aten = torch.ops.aten


def _tangent(size: Sequence[int], *, dtype: Any = None, device: Any = None, **_: Any) -> Tensor:
    zeros: Tensor = _aten.zeros.default(size, dtype=dtype, layout=torch.strided, device=device)
    return zeros


DECOMPOSITION = {_aten._efficientzerotensor.default: _tangent}
"""Zero tangents as they are where torch has made tensors of them, for a trace that cannot hold them otherwise."""


def _is_tangent(node: torch.fx.Node) -> bool:
    return node.target is _aten.zeros.default and node.kwargs.keys() == {"dtype", "layout", "device"}


# The positions of operands any one of which makes the result zero.
_ZERO_IF_ANY: dict[Any, tuple[int, ...]] = {
    _aten.convolution.default: (0, 1),
    _aten.mm.default: (0, 1),
    _aten.bmm.default: (0, 1),
    _aten.mul.Tensor: (0, 1),
    _aten.mul.Scalar: (0,),
    _aten.div.Tensor: (0,),
    _aten.neg.default: (0,),
    _aten.sum.default: (0,),
    _aten.sum.dim_IntList: (0,),
    _aten.clone.default: (0,),
    _aten._to_copy.default: (0,),
    _aten.tanh_backward.default: (0,),
    _aten.sigmoid_backward.default: (0,),
    _aten.threshold_backward.default: (0,),
    _aten.gelu_backward.default: (0,),
}


def drop_zero_tangents(graph: torch.fx.Graph) -> bool:
    """Leave out of a traced graph what zero tangents make zero; returns whether anything changed.

    Such zeros are followed through views, products and sums; what else reads them gets a tensor of zeros. Memory that
    something writes to is none of them. Checked on 2.11.0 and 2.15.0.
    """
    if not any(map(_is_tangent, graph.find_nodes(op="call_function", target=_aten.zeros.default))):
        return False
    roots, written = _memory(graph)
    zeros: set[torch.fx.Node] = set()
    changed = False
    for node in list(graph.nodes):
        if node.op != "call_function" or roots[node] in written:
            continue
        if _is_tangent(node):
            zeros.add(node)
        elif zeros.isdisjoint(node.all_input_nodes):
            continue
        elif is_view(node):
            zeros.add(node)
        elif _is_zero(node, zeros):
            zeros.add(_zeros_for(graph, node))
            changed = True
        elif node.target is _aten.add.Tensor and not node.kwargs:
            changed |= _drop_term(graph, node, zeros, roots, written)
    if changed:
        graph.eliminate_dead_code()
    return changed


def _memory(graph: torch.fx.Graph) -> tuple[dict[torch.fx.Node, torch.fx.Node], set[torch.fx.Node]]:
    """The node whose memory each node is in, and those of them that something writes to."""
    roots: dict[torch.fx.Node, torch.fx.Node] = {}
    written: set[torch.fx.Node] = set()
    for node in graph.nodes:
        roots[node] = node
        if node.op != "call_function":
            continue
        if not isinstance(node.target, torch._ops.OpOverload):
            if node.target is operator.getitem:  # of a list of views, perhaps
                roots[node] = roots[node.all_input_nodes[0]]
            continue
        for place, argument in enumerate(node.target._schema.arguments):
            given = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
            if argument.alias_info is None:
                continue
            for part in given if isinstance(given, list | tuple) else [given]:
                if not isinstance(part, torch.fx.Node):
                    continue
                if argument.alias_info.is_write:
                    written.add(roots[part])
                if any(result.alias_info is not None for result in node.target._schema.returns):
                    roots[node] = roots[part]
        if node.target is _aten._unsafe_view.default:  # a view that says it is none
            roots[node] = roots[node.all_input_nodes[0]]
    return roots, written


def _is_zero(node: torch.fx.Node, zeros: set[torch.fx.Node]) -> bool:
    if node.target is _aten.convolution.default and node.args[2] is not None:  # a bias
        return False
    places = _ZERO_IF_ANY.get(node.target, ())
    return any(node.args[n] in zeros for n in places) and node.meta["val"].is_contiguous()


def _drop_term(
    graph: torch.fx.Graph,
    node: torch.fx.Node,
    zeros: set[torch.fx.Node],
    roots: dict[torch.fx.Node, torch.fx.Node],
    written: set[torch.fx.Node],
) -> bool:
    """Put for a sum with zeros its other term, or a copy where someone could tell that it is the same memory."""
    terms = [term for term in node.args if term not in zeros]
    new = node.meta["val"]
    if not terms:
        if not new.is_contiguous():
            return False
        zeros.add(_zeros_for(graph, node))
        return True
    (term,) = terms
    old = term.meta.get("val") if isinstance(term, torch.fx.Node) else None
    if not isinstance(term, torch.fx.Node) or not isinstance(old, Tensor):
        return False
    if (
        new.dtype != old.dtype
        or new.device != old.device
        or new.stride() != old.expand(new.shape).contiguous().stride()
    ):
        return False
    own = roots[term] is term and term.op == "call_function" and term not in written and len(term.users) == 1
    if own and new.shape == old.shape and new.stride() == old.stride():
        node.replace_all_uses_with(term)
        graph.erase_node(node)
        return True
    with graph.inserting_before(node):
        wide = graph.call_function(_aten.expand.default, (term, list(new.shape)))
        wide.meta["val"] = old.expand(new.shape)
        copy = graph.call_function(_aten.clone.default, (wide,), {"memory_format": torch.contiguous_format})
    copy.meta.update(node.meta)
    roots[wide], roots[copy] = roots[term], copy
    node.replace_all_uses_with(copy)
    graph.erase_node(node)
    return True


def _zeros_for(graph: torch.fx.Graph, node: torch.fx.Node) -> torch.fx.Node:
    """Zeros instead of a node."""
    value = node.meta["val"]
    kind = {"dtype": value.dtype, "layout": torch.strided, "device": value.device}
    with graph.inserting_before(node):
        zeros = graph.call_function(_aten.zeros.default, (list(value.shape),), kind)
    zeros.meta.update(node.meta)
    node.replace_all_uses_with(zeros)
    graph.erase_node(node)
    return zeros

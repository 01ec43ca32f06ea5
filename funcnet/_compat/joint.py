"""A function and its pullback as one graph, traced beside the trace that is under way.

`make_fx` may be called within itself. Every private name is checked on 2.15.0.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet._compat.interpreters import _under
from funcnet._compat.loops import _thread, sketch

__all__ = ["is_cheap", "is_view", "joint_graph", "joint_results", "sketching"]

_VIEWS = frozenset({"alias", "detach", "expand", "_unsafe_view", "lift_fresh"})  # beside those that torch marks
_CHEAP = frozenset(
    {
        "clone", "_to_copy", "full", "full_like", "zeros", "zeros_like", "ones", "ones_like", "new_zeros", "new_ones",
        "new_full", "arange", "scalar_tensor", "constant_pad_nd", "flip", "cat", "stack",
    }
)  # fmt: skip


def sketching() -> bool:
    """Whether what runs is looked at for its shapes alone."""
    return bool(_thread.sketches)


def joint_results(f: Callable[..., Sequence[Tensor]], examples: Sequence[Tensor]) -> list[Tensor]:
    """What a function of flat tensors like these, contiguous, returns; no values. For use where `graphing()`."""
    with sketch(), _under(0):
        return list(f(*(torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in examples)))


def joint_graph(f: Callable[..., Sequence[Tensor]], examples: Sequence[Tensor]) -> torch.fx.Graph | None:
    """The graph of a function of flat tensors like these, contiguous, which closes over none that is traced.

    For use where `graphing()`: none of it enters the graph that is being made. None where the graph cannot be taken
    apart by what depends on what: it has writes, loops or constants of its own.
    """
    from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx

    with disable_proxy_modes_tracing(), _under(0):
        own = [torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in examples]
        graph = make_fx(lambda *args: list(f(*args)))(*own).graph
    graph.eliminate_dead_code()
    _out_of_place(graph)
    for node in graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            if node.target._schema.is_mutable or node.target is torch.ops.aten.as_strided.default:
                return None
        elif node.op not in ("placeholder", "output") and "getitem" not in str(node.target):
            return None
    return graph


def _out_of_place(graph: torch.fx.Graph) -> None:
    """Let what writes over a fresh result that nobody else reads return another: `relu_`, `squeeze_` in a product."""
    for node in graph.nodes:
        target: Any = node.target
        if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
            continue
        over = node.args[0] if node.args else None
        if not isinstance(over, torch.fx.Node) or not isinstance(over.target, torch._ops.OpOverload):
            continue  # an argument, or one of several results, which may be views of one memory
        if is_view(over) or len(over.users) > 1:
            continue
        if target._schema.is_mutable and _name(node).endswith("_"):
            packet = getattr(torch.ops.aten, _name(node).removesuffix("_"), None)
            if packet is not None and target._overloadname in packet.overloads():
                node.target = getattr(packet, target._overloadname)


def _name(node: torch.fx.Node) -> str:
    return str(getattr(getattr(node.target, "_schema", None), "name", "")).removeprefix("aten::")


def is_view(node: torch.fx.Node) -> bool:
    """Whether a node's result is another view of what it was given, with as many elements at most."""
    target: Any = node.target
    return node.op == "call_function" and (getattr(target, "is_view", False) or _name(node) in _VIEWS)


def is_cheap(node: torch.fx.Node) -> bool:
    """Whether a result costs no more to compute again than to store and read: elementwise work, copies, views."""
    target: Any = node.target
    tags = getattr(target, "tags", ())
    return node.op == "call_function" and (torch.Tag.pointwise in tags or is_view(node) or _name(node) in _CHEAP)

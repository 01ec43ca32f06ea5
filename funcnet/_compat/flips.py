"""Scans from the end to the beginning, whose operands torch would turn round in memory.

Torch's scan knows one direction, so that the other is one over flipped operands, with results flipped back: copies of
everything that goes in. Inductor makes a while loop of a scan, in which slices are views, so there it is enough to
count the other way. Checked on 2.15.0; where torch has changed, flips stay what they are.
"""

import operator
from typing import Any

import torch

_SELECT = torch.ops.aten.select.int
_FLIPS = (torch.ops.aten.flip.default, torch.ops.prims.rev.default)  # what torch makes of the first


def unflip(graph: torch.fx.GraphModule) -> int:
    """Have the while loops of a graph read and write from the end what is flipped around them; how many there are."""
    changed = 0
    for loop in graph.graph.find_nodes(op="call_function", target=torch.ops.higher_order.while_loop):
        _, name, carried, *_ = loop.args
        bodies = graph.graph.find_nodes(op="get_attr", target=name.target)
        if sum(len(node.users) for node in bodies) > 1:  # another loop has this body, too
            continue
        body = getattr(graph, name.target)
        inner = body.graph.find_nodes(op="placeholder", sort=True)
        (returned,) = body.graph.output_node().args
        outer = {node.args[1]: node for node in loop.users if node.target is operator.getitem}
        operands = list(carried)
        for place, operand in enumerate(carried):
            used = [node for node in inner[place].users if node.op != "output"]
            if returned[place] is not inner[place] or not all(map(_is_row, used)) or not used:
                continue
            result = outer.get(place)
            flips = [] if result is None else list(result.users)
            if _is_flip(operand) and not flips:
                operands[place] = operand.args[0]
            elif operand.target in _FRESH and flips and all(map(_is_flip, flips)):
                for flip in flips:
                    flip.replace_all_uses_with(result)
                    graph.graph.erase_node(flip)
            else:
                continue
            changed += 1
            for row in used:
                _count_down(body.graph, row, operand.meta["val"].shape[0])
        loop.args = (*loop.args[:2], type(carried)(operands), *loop.args[3:])
        if changed:
            body.recompile()
    if changed:
        graph.graph.eliminate_dead_code()
        graph.recompile()
    return changed


_FRESH = {torch.ops.aten.empty_strided.default, torch.ops.aten.empty.memory_format}


def _is_flip(node: torch.fx.Node) -> bool:
    return node.target in _FLIPS and list(node.args[1]) == [0]  # type: ignore[arg-type]  # the axes


def _is_row(node: torch.fx.Node) -> bool:
    """Whether a node is a slice at an index that is counted."""
    return node.target is _SELECT and node.args[1:2] == (0,) and isinstance(node.args[2], torch.fx.Node)


def _count_down(graph: torch.fx.Graph, row: torch.fx.Node, size: int) -> None:
    tensor, axis, index = row.args
    assert isinstance(index, torch.fx.Node)  # as `_is_row` found
    with graph.inserting_after(index):
        last = graph.call_function(operator.sub, (size - 1, index))
    last.meta["val"] = size - 1 - index.meta["val"]
    row.args = (tensor, axis, last)


def install_unflip() -> None:
    """Let Inductor do so after it has made while loops of scans, once."""
    try:
        from torch._inductor.fx_passes import post_grad

        decompose: Any = post_grad.decompose_scan_to_while_loop
    except (ImportError, AttributeError):
        return
    if getattr(decompose, "_funcnet", False):
        return

    def decompose_and_unflip(graph: torch.fx.GraphModule) -> None:
        decompose(graph)
        unflip(graph)

    decompose_and_unflip._funcnet = True  # type: ignore[attr-defined]  # a function takes any attribute
    post_grad.decompose_scan_to_while_loop = decompose_and_unflip  # type: ignore[assignment]  # what this room is for

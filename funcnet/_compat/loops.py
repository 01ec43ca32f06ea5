"""Loops and branches as single nodes of a traced graph: torch's higher-order operators.

Every private name is checked on 2.15.0, and has been there since 2.6. Where one is missing `graphing` says no, so that
a scan is traced unrolled, and a loop or a branch on values asks the tracer for one, which is an error of its own.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count
from typing import Any, cast

import torch
from torch import Tensor
from torch._C import _functorch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from funcnet._compat.levels import level_of, tracing

Flat = Callable[..., Sequence[Tensor]]

try:
    from torch._higher_order_ops.cond import cond_op
    from torch._higher_order_ops.scan import scan_op
    from torch._higher_order_ops.while_loop import while_loop_op
    from torch._subclasses.fake_tensor import FakeTensor
    from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, get_proxy_mode

    _AVAILABLE = True
    NODES: tuple[Any, ...] = (cond_op, scan_op, while_loop_op)
except ImportError:
    _AVAILABLE, NODES = False, ()


class _Thread(threading.local):
    def __init__(self) -> None:
        self.sketches: list[int] = []  # for each around the call, the number below those of the tensors it makes
        self.flows: list[_Flow] = []


_thread = _Thread()
_numbers = count(1)
_BORN = "_funcnet_born"


def graphing() -> bool:
    """Whether the call is traced into a graph, so that a loop is to become one node of it."""
    if not _AVAILABLE or not tracing() or torch.compiler.is_compiling():
        return False
    return bool(_thread.sketches) or get_proxy_mode() is not None


class _Births(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's modes are untyped
    """Numbers the tensors that calls make, in the order of their making."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for result in results if isinstance(results, (tuple, list)) else (results,):
            if isinstance(result, Tensor) and not any(result is a for a in args):
                setattr(result, _BORN, next(_numbers))
        return results


@contextmanager
def sketch() -> Iterator[None]:
    """Run what is inside for its shapes alone: nothing of it enters the graph. For use where `graphing()`."""
    _thread.sketches.append(next(_numbers))
    try:
        with disable_proxy_modes_tracing(), _Births():  # type: ignore[no-untyped-call]  # as above
            yield
    finally:
        _thread.sketches.pop()


def sketched() -> Callable[[Tensor], bool]:
    """Which tensors are made by the innermost sketch around this call, whatever transforms may wrap them by then."""
    if not _thread.sketches:
        return lambda tensor: False
    start = _thread.sketches[-1]
    return lambda tensor: getattr(bare(tensor), _BORN, 0) > start


class _Flow(TorchDispatchMode):  # type: ignore[no-untyped-call]  # as above
    """Follows what is computed from some tensors."""

    def __init__(self, sources: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reached = {id(t): t for t in map(bare, sources)}  # held, so that no other gets their number

    def __contains__(self, tensor: Tensor) -> bool:
        return id(bare(tensor)) in self.reached

    def follow(self, given: Any, results: Any) -> None:
        """Every result of what was given one that is reached is reached."""
        if any(isinstance(t, Tensor) and t in self for t in tree_leaves(given)):
            self.reached |= {id(t): t for t in map(bare, filter(torch.is_tensor, tree_leaves(results)))}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        self.follow((args, kwargs), results)
        return results


def dependent(f: Flat, args: Sequence[Tensor], sources: Sequence[bool]) -> list[bool]:
    """Which results of a function depend on the arguments at True. The function is run for a sketch."""
    with sketch() if graphing() else nullcontext():
        own = [t.clone() for t in args]
        flow = _Flow([t for t, source in zip(own, sources, strict=True) if source])
        _thread.flows.append(flow)
        try:
            with flow:
                return [result in flow for result in f(*own)]
        finally:
            _thread.flows.pop()


def _sketch_of(results: Sequence[Tensor], *given: Sequence[Tensor]) -> list[Tensor]:
    """The results of one turn in the place of a node's, in which all of them may depend on everything given."""
    for flow in _thread.flows:
        flow.follow(given, results)
    return list(results)


def bare(tensor: Tensor) -> Tensor:
    """The tensor without the wrappers of all transforms: what `vmap` hides shows as dimensions."""
    while _functorch.is_functorch_wrapped_tensor(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor


def within(tensor: Tensor, level: int) -> Iterator[Tensor]:
    """What the wrappers of transforms inside a level hold, the innermost of these first."""
    while level_of(tensor) > level:
        tensor = _functorch.get_unwrapped(tensor)
        yield tensor


def hidden(shape: Sequence[int], by: str) -> str:
    """The words in which a tensor is refused that went past what follows it."""
    return (
        f"A function under {by} closes over a tensor of shape {tuple(shape)}, and hands it to what cannot be looked "
        f"into, such as torch.func.grad or an autograd.Function. Make it an argument or part of the carry, or use "
        f"funcnet's transforms."
    )


def mapped(tensor: Tensor) -> bool:
    """Whether some `vmap` around gave this tensor a hidden dimension."""
    while _functorch.is_functorch_wrapped_tensor(tensor):
        if _functorch.is_batchedtensor(tensor):
            return True
        tensor = _functorch.get_unwrapped(tensor)
    return False


def _own(*groups: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """Tensors that a node may take: no two of one memory, and in the layout that its body returns."""
    seen: set[int] = set()
    owned = []
    for group in groups:
        mine = []
        for tensor in group:
            tensor = tensor.detach().contiguous()
            if (memory := tensor.untyped_storage()._cdata) in seen:
                tensor = tensor.clone()
            seen.add(memory)
            mine.append(tensor)
        owned.append(tuple(mine))
    return owned


def _separate(f: Flat) -> Callable[..., tuple[Tensor, ...]]:
    """The function with results that are neither arguments nor one another, which the operators refuse.

    They call it below autograd, where a gradient inside it would be zero.
    """
    included, excluded = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()

    def separate(*args: Tensor) -> tuple[Tensor, ...]:
        with torch._C._ForceDispatchKeyGuard(included, excluded):
            return tuple(t.detach().clone(memory_format=torch.contiguous_format) for t in f(*args))

    return separate


def scan_node(body: Flat, carry: Sequence[Tensor], xs: Sequence[Tensor], consts: Sequence[Tensor]) -> list[Tensor]:
    """`(carry, ys)` flat, of a scan over the first axis of `xs`, at least one; the body maps one step, flat as well."""
    if _thread.sketches:
        results = list(body(*carry, *(x[0] for x in xs), *consts))
        ys = [y.expand(xs[0].shape[0], *y.shape) for y in results[len(carry) :]]
        return _sketch_of([*results[: len(carry)], *ys], carry, xs, consts)
    carry, xs, consts = _own(carry, xs, consts)
    return list(scan_op(_separate(body), list(carry), list(xs), consts))


def while_node(cond: Flat, body: Flat, carry: Sequence[Tensor], consts: Sequence[Tensor]) -> list[Tensor]:
    """The carry after the loop; `cond` gives one predicate."""
    if _thread.sketches:
        return _sketch_of(body(*carry, *consts), carry, consts)
    going = _separate(cond)
    carry, consts = _own(carry, consts)
    return list(cast(Any, while_loop_op)(lambda *args: going(*args)[0], _separate(body), carry, consts))


def cond_node(pred: Tensor, true: Flat, false: Flat, operands: Sequence[Tensor]) -> list[Tensor]:
    """What one of the branches returns."""
    if _thread.sketches:
        return _sketch_of(true(*operands), operands)
    return list(cond_op(pred.detach(), _separate(true), _separate(false), *_own(operands)))


def hoist_constants(graph: torch.fx.GraphModule) -> None:
    """Hand the tensors that the bodies of nodes hold as constants to these nodes from outside.

    Torch cannot compile a body that has any: a `torch.tensor(...)` in a step, or a tensor around it that is not traced.
    """
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or node.target not in NODES:
            continue
        held = [getattr(graph, arg.target) for arg in node.args if getattr(arg, "op", None) == "get_attr"]
        bodies = [body for body in held if isinstance(body, torch.fx.GraphModule)]
        for body in bodies:
            hoist_constants(body)
        constants = [(body, constant) for body in bodies for constant in body.graph.find_nodes(op="get_attr")]
        for body, constant in constants:
            value = getattr(body, constant.target)
            if not isinstance(value, Tensor):
                continue
            if isinstance(value, FakeTensor):
                raise RuntimeError(hidden(value.shape, "scan, while_loop or cond"))
            name = f"_hoisted_{sum(other.startswith('_hoisted') for other, _ in graph.named_buffers(recurse=False))}"
            graph.register_buffer(name, value)
            with graph.graph.inserting_before(node):
                outside = graph.graph.get_attr(name)
            outside.meta = dict(constant.meta)
            node.args = (*node.args[:-1], (*node.args[-1], outside))
            for other in bodies:  # the bodies of one node have the same inputs
                placeholder = _last_placeholder(other, constant.meta)
                if other is body:
                    constant.replace_all_uses_with(placeholder)
                    other.graph.erase_node(constant)
                other.recompile()
        if constants:
            graph.recompile()


def _last_placeholder(graph: torch.fx.GraphModule, meta: dict[str, Any]) -> torch.fx.Node:
    others = graph.graph.find_nodes(op="placeholder")
    first = next(iter(graph.graph.nodes))
    with graph.graph.inserting_after(others[-1]) if others else graph.graph.inserting_before(first):
        placeholder = graph.graph.placeholder(f"hoisted_{len(others)}")
    placeholder.meta = dict(meta)
    return placeholder

"""From a Python function of tensors to one compiled graph, by running it once on fake tensors.

Tracing by execution meets every corner that eager mode knows (function modes, nested transforms, Python containers),
on every version of torch alike; what depends on values cannot be traced, and says so.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from funcnet import _compat

__all__ = ["CompilerMissingError", "compile_flat"]

Flat = Callable[..., list[Any]]

_aten = torch.ops.aten
_CONSTANTS = {
    _aten.scalar_tensor.default,
    _aten.full.default,
    _aten.zeros.default,
    _aten.ones.default,
    _aten.full_like.default,
    _aten.zeros_like.default,
    _aten.ones_like.default,
}


class CompilerMissingError(RuntimeError):
    """`jit` needs a C++ compiler on this machine, and there is none."""

    __module__ = "funcnet"


def compile_flat(
    f: Flat,
    inputs: Sequence[Tensor],
    *,
    name: str,
    backend: str | Callable[..., Any],
    mode: str | None,
    static: Sequence[int],
    check: Callable[[list[Tensor]], None],
) -> Callable[..., Any]:
    """Compile `f`, a function of tensors that returns a list of tensors, for inputs like these.

    Args:
        f: the function; it may write into its inputs.
        inputs: examples, of whose values nothing is used.
        name: what errors call the function.
        backend: "inductor", "aot_eager", "eager", or a function of (graph module, examples).
        mode: Inductor's mode: None, "reduce-overhead" (CUDA graphs), "max-autotune" ...
        static: the inputs whose address stays the same from call to call, which CUDA graphs need not copy.
        check: called, before compiling, with the tensors that `f` closed over.

    Returns:
        The compiled function, which takes the inputs and then the tensors that `f` closed over.
    """
    if backend == "inductor" and any(t.device.type == "cpu" for t in inputs):
        _require_cpp_compiler(name)
    inputs = _each_its_own(inputs)
    try:
        with torch.no_grad():
            graph = _compat.trace(f, inputs)
            captured = _lift_constants(graph)
            check(captured)
            _keep_scalars(graph)
            graph.recompile()
            # The graph holds the casts of autocast, which must not see it again, neither now nor when it runs.
            casts = _compat.autocast_state() != (None, None)
            compiler = _without_autocast(_compat.compile_graph) if casts else _compat.compile_graph
            # What is closed over stays where it is, too.
            static = [*static, *range(len(inputs), len(inputs) + len(captured))]
            compiled = compiler(graph, [*inputs, *captured], backend, mode, static)
    except Exception as error:
        if not _compat.is_data_dependent(error):
            raise
        raise TypeError(
            f"jit({name}) cannot follow a Python decision that depends on a tensor's value (an `if`, a loop, .item(), "
            f"a boolean mask): the value is known only when the compiled step runs. Write torch.where, a fixed-size "
            f"form, or make the argument static. Torch says: {str(error).splitlines()[0]}"
        ) from error
    return _without_autocast(compiled) if casts else compiled


def _without_autocast(f: Callable[..., Any]) -> Callable[..., Any]:
    def plain(*args: Any) -> Any:
        with ExitStack() as stack:
            _compat.enter_autocast(stack, (None, None))
            return f(*args)

    return plain


def _each_its_own(inputs: Sequence[Tensor]) -> list[Tensor]:
    """The inputs, none of which is the object of another: the tracer would take the two for one for ever."""
    seen: set[int] = set()
    found = []
    for tensor in inputs:
        found.append(tensor.detach() if id(tensor) in seen else tensor)
        seen.add(id(tensor))
    return found


def _lift_constants(graph: torch.fx.GraphModule) -> list[Tensor]:
    """Turn the tensors that a traced function closed over into inputs, and return them in order."""
    captured: list[Tensor] = []
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1:]
    for node in list(graph.graph.nodes):
        if node.op != "get_attr" or not isinstance(value := getattr(graph, node.target, None), Tensor):
            continue
        with graph.graph.inserting_after(last[0]) if last else graph.graph.inserting_before(node):
            placeholder = graph.graph.placeholder(f"captured_{len(captured)}")
        placeholder.meta = dict(node.meta)
        node.replace_all_uses_with(placeholder)
        graph.graph.erase_node(node)
        captured.append(value)
        last = [placeholder]
    return captured


def _keep_scalars(graph: torch.fx.GraphModule) -> None:
    """Have each scalar that a larger tensor is made with computed once.

    Inductor would fuse it into the loop over the tensor: a bias correction, a schedule's cosine, for every element.
    A constant is better written into the loop than loaded there. What is written after it was made stays as it is: a
    copy would miss that.
    """
    written = {_compat.storage_of(node.args[0].meta["val"]) for node in graph.graph.nodes if _writes(node)}
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or node.target in _CONSTANTS or _elements(node) != 1:
            continue
        if _compat.storage_of(node.meta["val"]) in written:
            continue
        readers = [user for user in node.users if user.op == "call_function" and (_elements(user) or 0) > 1]
        if readers:
            with graph.graph.inserting_after(node):
                kept = graph.graph.call_function(_compat.KEEP, (node,))
            kept.meta = dict(node.meta)
            for reader in readers:
                reader.replace_input_with(node, kept)


def _writes(node: torch.fx.Node) -> bool:
    """Whether an operation writes into its first argument."""
    schema = getattr(node.target, "_schema", None)
    first = node.args[0] if node.args else None
    return schema is not None and schema.is_mutable and isinstance(first, torch.fx.Node) and "val" in first.meta


def _elements(node: torch.fx.Node) -> int | None:
    value = node.meta.get("val")
    return value.numel() if isinstance(value, Tensor) else None


def _require_cpp_compiler(name: str) -> None:
    problem = _compat.cpp_compiler_problem()
    if problem:
        raise CompilerMissingError(
            f"jit({name}) compiles CPU code and found no C++ compiler ({problem}). Install one: `apt-get install g++` "
            f"on Debian and Ubuntu, `dnf install gcc-c++` on Fedora, `xcode-select --install` on macOS, or name it in "
            f"the environment variable CXX. Without one, {name}.eager runs the same function uncompiled, and "
            f'jit(..., backend="aot_eager") traces it without compiling.'
        )

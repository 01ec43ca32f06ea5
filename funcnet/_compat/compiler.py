"""Tracing a function into a graph, and compiling the graph."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, cast

import torch

from funcnet._compat.flips import install_unflip
from funcnet._compat.forward import FORWARD
from funcnet._compat.loops import NODES, hoist_constants
from funcnet._compat.lowering import install_lowerings
from funcnet._compat.products import products_key, use_products
from funcnet._compat.sources import shared_files
from funcnet._compat.tangents import DECOMPOSITION, drop_zero_tangents

# Tracing patches `nn.Module` for the whole process, and the compiler its settings: of two threads the one that ends
# first would take the patches away from the other, and leave its own for ever. What is traced may enter forward mode,
# so that its lock comes first. Checked on 2.15.0.
_ALONE = RLock()


def trace(f: Callable[..., Any], inputs: Sequence[torch.Tensor]) -> torch.fx.GraphModule:
    """Run `f` once on fake tensors and return the graph of what it did.

    `make_fx` carries tensors that `f` closes over as constants of the graph only with `_allow_non_fake_inputs`. The
    graph's Python is written when it is first called, which it never is where the compiler finds it in its cache: a
    seventh of the time that tracing takes. Checked on 2.15.0.
    """
    from torch._subclasses.fake_tensor import DataDependentOutputException
    from torch.fx._lazy_graph_module import _use_lazy_graph_module
    from torch.fx.experimental.proxy_tensor import make_fx  # brings sympy: half a second that only jit needs

    read = torch.ops.aten._local_scalar_dense.default

    def traced(**options: Any) -> torch.fx.GraphModule:
        with FORWARD, _ALONE, _use_lazy_graph_module(True):
            return make_fx(f, tracing_mode="fake", _allow_non_fake_inputs=True, **options)(*inputs)

    try:
        graph = traced()
    except RuntimeError as error:
        if "device" not in str(error) or "meta" not in str(error):  # the words differ from 2.11 to 2.15
            raise
        # torch puts a view of a zero tangent on the meta device, where vmap meets what the function closed over.
        graph = traced(decomposition_table=DECOMPOSITION)
    # Forward mode leaves operations on meta tensors, whose shapes are wrong under vmap, and whose results no one reads.
    for part in graph.modules():  # the graph itself, and the bodies of its loops and branches
        if isinstance(part, torch.fx.GraphModule):
            changed = part.graph.eliminate_dead_code()
            changed |= drop_zero_tangents(part.graph)
            if part.graph.find_nodes(op="call_function", target=read, sort=False):
                raise DataDependentOutputException(read)  # else the backend fails, in words of its own
            if _keep_tangents(part) or changed:
                part.recompile()  # which writes its Python: as long as tracing a small step, so not without a reason
    hoist_constants(graph)
    return graph


def _keep_tangents(graph: torch.fx.GraphModule) -> bool:
    """Copy forward mode's tangents as they are, where it gives them the strides of their primal.

    Those of an expanded primal cannot be written. Returns whether there was any. Checked on 2.15.0.
    """
    changed = False
    layout = torch.ops.aten._new_zeros_with_same_feature_meta.default
    for copy in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.copy_.default):
        target, source = copy.args[:2]
        if target.target is layout and target.args[0] is source:
            with graph.graph.inserting_before(copy):
                # Under vmap the primal may have a batch dimension that the tangent lacks.
                wide = graph.graph.call_function(torch.ops.aten.expand.default, (source, copy.meta["val"].shape))
            wide.meta = dict(copy.meta)
            copy.target, copy.args = torch.ops.aten.clone.default, (wide,)
            changed = True
    return changed


def is_data_dependent(error: Exception) -> bool:
    """Whether tracing failed because Python asked for a tensor's value. Checked on 2.15.0."""
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    kinds = (DataDependentOutputException, DynamicOutputShapeException, GuardOnDataDependentSymNode)
    return isinstance(error, kinds)


def compile_graph(
    graph: torch.fx.GraphModule,
    inputs: Sequence[torch.Tensor],
    backend: str | Callable[..., Any],
    mode: str | None,
    static: Sequence[int],
) -> Callable[..., Any]:
    """Compile a traced graph. Its callable takes the flat inputs: no Dynamo, whose pass would trace again and guard.

    Inductor learns which inputs keep their address through `inner_compile`. Checked on 2.15.0.
    """
    from torch import _guards  # brings sympy, as below
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    # A context with a shape environment, for want of which Inductor would not look into its cache of graphs, and torch
    # would not compile a while loop.
    faked = FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True)
    with _ALONE, _guards.tracing(_guards.TracingContext(faked)):
        # Faked here, since torch would take the sizes of real ones for variables.
        examples: list[torch.Tensor] = [faked.from_tensor(t, static_shapes=True) for t in inputs]
        if isinstance(backend, str) and backend != "inductor":
            return cast(Callable[..., Any], torch._dynamo.lookup_backend(backend)(graph, examples))
        if not isinstance(backend, str):
            return cast(Callable[..., Any], backend(graph, list(inputs)))
        from torch._inductor import compile_fx, list_mode_options  # seconds of import, wanted only here

        install_lowerings()
        install_unflip()

        def inner(module: Any, examples: Any, **options: Any) -> Any:
            use_products(module)
            options["static_input_idxs"] = sorted({*options.get("static_input_idxs", ()), *static})
            return compile_fx.compile_fx_inner(module, examples, **options)

        patches = dict(list_mode_options(mode)) if mode else {}
        if all(t.device.type == "cpu" for t in inputs) and not _gains_from_channels_last(graph):
            patches["layout_optimization"] = False
        # Torch looks for no graph with a loop in its cache; a compiled LSTM took 6 s in each process.
        # How products are rewritten enters the key of its caches in the same way.
        cacheable = {f"{n.__module__}.{n.__name__}": "1" for n in NODES}
        patches["unsafe_marked_cacheable_functions"] = {**cacheable, "funcnet": products_key()}
        with shared_files():
            compiled = compile_fx.compile_fx(graph, examples, inner_compile=inner, config_patches=patches)
    return cast(Callable[..., Any], compiled)


def _gains_from_channels_last(graph: torch.fx.GraphModule) -> bool:
    """Whether convolutions on the CPU are faster with images and weights turned to channels-last around them.

    Inductor does that by itself. A training step takes 0.45 of that time without (resnet18 at 8x3x64x64), and 0.84 (two
    convolutions at 64x3x32x32), since its results are turned back to the layout of the parameters. In evaluation it
    pays where the images are more than the weights that are turned as well: without it resnet18 takes 0.6 to 1.0 of the
    time from 64x64 to 224x224, where the images have 0.02 to 0.9 numbers for one of the weights, and mobilenet_v2,
    where they have 2 to 12, takes 1.3 to 1.9.
    """
    aten = torch.ops.aten
    found = {
        name: graph.graph.find_nodes(op="call_function", target=op.default, sort=False)
        for name, op in (("forward", aten.convolution), ("backward", aten.convolution_backward))
    }
    images = sum(node.meta["val"].numel() for node in found["forward"])
    weights = sum(node.args[1].meta["val"].numel() for node in found["forward"])
    return not found["backward"] and images >= weights


@contextmanager
def empty_compiler_cache() -> Iterator[None]:
    """A context in which Inductor's caches are empty at first, and its own. Checked on 2.11.0 and 2.15.0."""
    from torch._inductor.utils import fresh_cache  # seconds of import

    with fresh_cache():
        yield


@contextmanager
def compiler_cache(folder: Path) -> Iterator[None]:
    """A context in which Inductor finds in its caches what a folder holds, and adds to it. Checked on 2.15.0."""
    with empty_compiler_cache():  # which names its own folder in these variables, and puts back what was there
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
        os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")
        yield


def cpp_compiler_problem() -> str | None:
    """Why Inductor could not compile C++ here, or None if it can. Checked on 2.15.0."""
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler as e:
        return str(e).splitlines()[0]
    return None


def same_storage(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors share memory, fake ones too. Checked on 2.15.0."""
    shared: bool = cast(Any, torch._C)._is_alias_of(a, b)  # torch's stubs lack it
    return shared

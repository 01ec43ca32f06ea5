"""The only room that may name a private torch API.

Each entry says what it is for, the versions it was checked on, and what happens where it is missing.
"""

import sys
from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch._C import _functorch
from torch.utils import _pytree

__all__ = [
    "foreach_add",
    "foreach_add_",
    "foreach_mul",
    "fused_adam",
    "plain",
    "readable",
    "register_dataclass",
    "tracing",
    "transform_active",
    "tree_children",
    "tree_node",
]


def transform_active() -> bool:
    """Whether a torch.func transform (grad, vmap, jvp ...) surrounds this call.

    `peek_interpreter_stack` is None outside every transform. Checked on 2.15.0.
    """
    return _functorch.peek_interpreter_stack() is not None


def tracing() -> bool:
    """Whether the call is being traced or faked, so that tensors hold no values that the host may read.

    Any active dispatch mode (fake tensors, proxies) counts. Checked on 2.15.0.
    """
    return torch._C._len_torch_dispatch_stack() > 0 or torch.compiler.is_compiling()


def plain() -> bool:
    """Whether this is ordinary eager code, whose tensors may be read on the host and written when fresh."""
    return not transform_active() and not tracing()


# Torch's key is the function itself. Looked up once: torch.compile knows no dict keyed by it.
_NAMED_TUPLE = _pytree.SUPPORTED_NODES[cast(type, namedtuple)]


def tree_node(value: Any) -> _pytree.NodeDef | None:
    """How torch's pytree registry opens and closes `value`, or None where `value` is a leaf.

    `SUPPORTED_NODES` maps a type to its flatten and unflatten functions; every NamedTuple shares the entry of
    `namedtuple`. The registry is the one that `torch.func`, `torch.compile` and `torch.export` use, so a type
    registered for them is a tree for us. Checked on 2.15.0.
    """
    node = _pytree.SUPPORTED_NODES.get(type(value))
    if node is None and isinstance(value, tuple) and getattr(type(value), "_fields", None) is not None:
        return _NAMED_TUPLE
    return node


def tree_children(node: _pytree.NodeDef, value: Any) -> list[tuple[str, Any]]:
    """The named children of `value`: dict key, field name or position. Checked on 2.15.0."""
    if node.flatten_with_keys_fn is None:
        return [(str(i), child) for i, child in enumerate(node.flatten_fn(value)[0])]
    pairs, _ = node.flatten_with_keys_fn(value)
    return [(_entry_name(entry), child) for entry, child in pairs]


def _entry_name(entry: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def register_dataclass(cls: type, drop_field_names: list[str]) -> None:
    """Register a dataclass in torch's pytree registry, less the named fields. Checked on 2.15.0."""
    _pytree.register_dataclass(cls, drop_field_names=drop_field_names)


def trace(f: Callable[..., Any], inputs: Sequence[torch.Tensor]) -> torch.fx.GraphModule:
    """Run `f` once on fake tensors and return the graph of what it did.

    `make_fx` carries tensors that `f` closes over as constants of the graph only with `_allow_non_fake_inputs`.
    Checked on 2.15.0.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # brings sympy: half a second that only jit needs

    return make_fx(f, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)


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
    if backend != "inductor":
        function = torch._dynamo.lookup_backend(backend) if isinstance(backend, str) else backend
        return cast(Callable[..., Any], function(graph, list(inputs)))
    from torch import _guards
    from torch._inductor import compile_fx, list_mode_options  # seconds of import, wanted only here
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    _install_lowerings()

    def inner(module: Any, examples: Any, **options: Any) -> Any:
        options["static_input_idxs"] = sorted({*options.get("static_input_idxs", ()), *static})
        return compile_fx.compile_fx_inner(module, examples, **options)

    patches = list_mode_options(mode) if mode else None
    # A context with a shape environment, for want of which Inductor would not look into its cache of graphs; and inputs
    # faked here, since it would take the sizes of real ones for variables.
    faked = FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True)
    examples = [faked.from_tensor(t, static_shapes=True) for t in inputs]
    with _guards.tracing(_guards.TracingContext(faked)):
        compiled = compile_fx.compile_fx(graph, examples, inner_compile=inner, config_patches=patches)
    return cast(Callable[..., Any], compiled)


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


def readable(tensor: torch.Tensor) -> bool:
    """Whether the host may read this tensor: an ordinary one on the CPU, neither wrapped by a transform nor traced.

    Weaker than `plain`: inside `grad` or `vmap` an argument that the transform does not wrap still holds plain values,
    as a dropout key does in a training step. `is_functorch_wrapped_tensor` is checked on 2.15.0; `is_compiling` comes
    first because the compiler turns it into a constant and so never meets the private names.
    """
    if torch.compiler.is_compiling() or type(tensor) is not torch.Tensor or tensor.device.type != "cpu":
        return False
    return torch._C._len_torch_dispatch_stack() == 0 and not _functorch.is_functorch_wrapped_tensor(tensor)


def autocast_state() -> tuple[Any, ...]:
    """The ambient autocast of the current thread, by which the same code traces to another graph. Public since 2.4."""
    return tuple(
        (torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None) for device in ("cpu", "cuda")
    )


def fused_adam(
    updates: list[torch.Tensor],
    grads: list[torch.Tensor],
    mu: list[torch.Tensor],
    nu: list[torch.Tensor],
    step: torch.Tensor,
    lr: float | torch.Tensor,
    b1: float,
    b2: float,
    eps: float,
) -> bool:
    """Adam's moments and step in one kernel: `mu`, `nu` and `updates` are written, the last by `-lr * mu_hat / (...)`.

    All lists have one device and dtype, and hold contiguous tensors; `step` is a float32 count that starts at 1.
    False, with nothing written, where this torch has no such kernel for the device. The kernel is what
    `torch.optim.Adam(fused=True)` runs. Checked on 2.15.0, CPU.
    """
    kernel = getattr(torch, "_fused_adam_", None)
    if kernel is None or grads[0].device.type not in ("cpu", "cuda"):
        return False
    kernel(
        updates,
        grads,
        mu,
        nu,
        [],
        [step] * len(grads),
        lr=lr,
        beta1=b1,
        beta2=b2,
        weight_decay=0.0,
        eps=eps,
        amsgrad=False,
        maximize=False,
    )
    return True


_Leaves = list[torch.Tensor] | tuple[torch.Tensor, ...]


def foreach_add(left: _Leaves, right: _Leaves, alpha: float = 1.0) -> _Leaves:
    """`left + alpha * right`, leaf by leaf in as few kernels as the device can. Checked on 2.15.0."""
    if not hasattr(torch, "_foreach_add"):
        return [torch.add(a, b, alpha=alpha) for a, b in zip(left, right, strict=True)]
    return torch._foreach_add(left, right, alpha=alpha)


def foreach_add_(left: _Leaves, right: _Leaves, alpha: float = 1.0) -> None:
    """`left += alpha * right`, for lists that the caller has just made. Checked on 2.15.0."""
    if hasattr(torch, "_foreach_add_"):
        torch._foreach_add_(left, right, alpha=alpha)
        return
    for a, b in zip(left, right, strict=True):
        a.add_(b, alpha=alpha)


def foreach_mul(values: _Leaves, factor: float | torch.Tensor) -> _Leaves:
    """Every leaf times one number or 0-dim tensor. Checked on 2.15.0."""
    if not hasattr(torch, "_foreach_mul"):
        return [value * factor for value in values]
    return torch._foreach_mul(values, cast(Any, factor))  # its number and its tensor are two overloads


@torch.library.custom_op("funcnet::gamma_grad", mutates_args=())
def gamma_grad(alpha: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
    """The derivative of a Gamma(alpha) sample with respect to alpha, at a fixed quantile. Same shapes and dtypes.

    `torch._standard_gamma_grad` is what `torch.distributions.Gamma.rsample` differentiates with; no public name gives
    it, and torch has no derivative of `gammainc` with respect to its first argument. An operator of our own, because
    torch's has no batching rule and warns of a slow loop under `vmap`. Checked on 2.15.0.
    """
    return torch._standard_gamma_grad(alpha.contiguous(), sample.contiguous())


@gamma_grad.register_fake
def _(alpha: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
    return torch.empty(alpha.shape, dtype=alpha.dtype, device=alpha.device)


def _gamma_grad_vmap(info: Any, dims: tuple[int | None, ...], *args: torch.Tensor) -> tuple[torch.Tensor, int]:
    front = [
        x.unsqueeze(0).expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
        for x, dim in zip(args, dims, strict=True)
    ]
    return gamma_grad(*front), 0


gamma_grad.register_vmap(_gamma_grad_vmap)


def batch_norm_statistics(
    input: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Batch normalization without running statistics: the output, the batch's mean and its biased variance.

    The fused kernel hands out `1 / sqrt(var + eps)`, which saves a pass over the input. Checked on 2.15.0.
    """
    kernel = torch.ops.aten._native_batch_norm_legit.no_stats
    output, mean, scale = kernel(input, weight, bias, True, 0.0, eps)
    return output, mean, (scale**-2 - eps).clamp_min(0)


def samplers() -> dict[str, Callable[..., torch.Tensor]]:
    """The private functions that `torch.distributions` samples with, by name; those this torch lacks are left out.

    Replaced by keyed draws inside `random.seeded`. Checked on 2.15.0.
    """
    names = ("_standard_gamma", "_sample_dirichlet")
    return {name: getattr(torch, name) for name in names if hasattr(torch, name)}


def batched(tensor: torch.Tensor) -> bool:
    """Whether `vmap` gave this tensor a hidden batch dimension at the current or an outer level.

    `is_functorch_wrapped_tensor` is true of gradient and forward-mode wrappers as well, which is harmless where this is
    asked. Checked on 2.15.0.
    """
    if torch.compiler.is_compiling():
        # The compiler does not trace the question, and removes what a needless yes costs.
        return True
    return bool(_functorch.is_functorch_wrapped_tensor(tensor))


def no_function_modes() -> Any:
    """A context in which no torch function mode is active. Checked on 2.15.0."""
    return torch._C.DisableTorchFunction()


@torch.library.custom_op("funcnet::keep", mutates_args=())
def _keep(x: torch.Tensor) -> torch.Tensor:
    """The same values, which Inductor computes and stores instead of fusing them into what reads them."""
    return x.clone()


@_keep.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


KEEP = torch.ops.funcnet.keep.default


def _lower_keep(x: Any) -> Any:
    x.realize()
    return x


_LOWERINGS: dict[str, Callable[..., tuple[Any, ...]]] = {}


def lower_elementwise(operator: str, body: Callable[..., tuple[Any, ...]]) -> None:
    """Let Inductor inline an operator of ours: `body(ops, *values)` computes one element of each result.

    Without it the operator would be called as it is: the same result, more slowly.
    """
    _LOWERINGS[operator] = body


def meet_inductor() -> None:
    """Register the lowerings if Inductor is at work, which then is imported."""
    if _LOWERINGS and "torch._inductor.lowering" in sys.modules:
        _install_lowerings()


def _install_lowerings() -> None:
    """Register the lowerings, once Inductor is imported anyhow. Checked on 2.15.0."""
    from torch._inductor import ir, lowering
    from torch._inductor.virtualized import ops

    if _LOWERINGS:
        lowering.register_lowering(KEEP, type_promotion_kind=None)(_lower_keep)
    while _LOWERINGS:
        name, body = _LOWERINGS.popitem()
        namespace, _, short = name.partition("::")
        overload = getattr(getattr(torch.ops, namespace), short).default
        results = len(overload._schema.returns)
        lowering.register_lowering(overload, type_promotion_kind=None)(_elementwise(ir, lowering, ops, body, results))


def _elementwise(
    ir: Any, lowering: Any, ops: Any, body: Callable[..., tuple[Any, ...]], results: int
) -> Callable[..., Any]:
    def lower(*inputs: Any) -> tuple[Any, ...]:
        inputs = tuple(lowering.broadcast_tensors(*inputs))
        loaders = [x.make_loader() for x in inputs]
        size, device, dtype = inputs[0].get_size(), inputs[0].get_device(), inputs[0].get_dtype()

        def result(n: int) -> Any:
            def element(index: Any) -> Any:
                return body(ops, *(load(index) for load in loaders))[n]

            made = ir.Pointwise.create(device=device, dtype=dtype, inner_fn=element, ranges=list(size))
            if not size:
                made.realize()  # a key is computed once, not again in every loop that draws from it
            return made

        return tuple(result(n) for n in range(results))

    return lower

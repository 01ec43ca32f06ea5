"""Which library multiplies matrices in a compiled graph, and where the two gradients of a tied weight are summed.

Torch multiplies float32 matrices on the CPU with MKL, which keeps to AVX2 on AMD's processors. oneDNN, which torch has
as well, uses their AVX-512, and is faster where rows are multiplied by a weight or by its transpose: the products of a
linear layer's forward pass and of the gradient of its input. The gradient of the weight stays with MKL: its first
operand is a transpose, which oneDNN would copy.

Figures, forward and gradient of the input in parts of MKL's time, 2 cores of an AMD EPYC, torch 2.15: 64 rows from 768
features to 50,304 0.56 and 0.88, 768 to 2,304 0.65 and 0.67, 512 to 256 0.90 and 0.94; 1,024 rows from 128 to 512 0.89
and 0.84; 520 rows from 192 to 576 0.96 and 0.85; 256 rows from 52 to 64 1.09 and 1.48. Without AVX-512 0.64 to 1.17.
"""

import functools
import platform
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

__all__ = ["PRODUCT", "lower_product", "products_key", "use_products"]

_aten = torch.ops.aten
# Multiplications and additions, below which calling oneDNN costs more than it saves.
_LARGE = 1 << 22
# How rows are added to a table; a version of torch that lacks the second has the first.
_PUTS = [op.default for op in (_aten.index_put, getattr(_aten, "_unsafe_masked_index_put_accumulate", None)) if op]


@torch.library.custom_op("funcnet::product", mutates_args=(), device_types="cpu")
def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`rows @ weight.T + bias` by oneDNN; weight of shape (features out, features in), in any layout."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return result


@_product.register_fake
def _(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return rows.new_empty((rows.shape[0], weight.shape[0]))


PRODUCT = torch.ops.funcnet.product.default


def lower_product(rows: Any, weight: Any, bias: Any) -> Any:
    """oneDNN's operator called as it is: Inductor's own lowering of it would copy a transposed weight."""
    from torch._inductor import ir

    operator = torch.ops.mkldnn._linear_pointwise.default
    return ir.TensorBox.create(ir.FallbackKernel.create(operator, rows, weight, bias, "none", [], ""))


@functools.cache
def _gains() -> bool:
    """Whether MKL is at work on a processor whose AVX-512 it leaves alone, and oneDNN at hand."""
    cpus = Path("/proc/cpuinfo")
    vendor = cpus.read_text(errors="replace") if cpus.is_file() else platform.processor()
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    both = both and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return both and "AuthenticAMD" in vendor and torch.backends.cpu.get_cpu_capability() == "AVX512"


def products_key() -> str:
    """What tells how graphs are rewritten here."""
    return f"products 1, oneDNN {_wanted()}"


def _wanted() -> bool:
    return _gains() and bool(torch.backends.mkldnn.enabled)


def use_products(graph: torch.fx.GraphModule) -> None:
    """Rewrite the products of a graph of torch's core operators, and of the bodies of its loops.

    Checked on 2.11.0 and 2.15.0.
    """
    for part in graph.modules():
        if isinstance(part, torch.fx.GraphModule):
            changed = _wanted() and _by_onednn(part.graph)
            if _sums_in_place(part.graph) or changed:
                part.recompile()


def _by_onednn(graph: torch.fx.Graph) -> bool:
    changed = False
    for operator in (_aten.mm.default, _aten.addmm.default):
        for node in graph.find_nodes(op="call_function", target=operator):
            bias, rows, columns = (None, *node.args)[-3:]
            if node.kwargs or not _gainful(bias, rows, columns):
                continue
            with graph.inserting_before(node):
                weight = graph.call_function(_aten.permute.default, (columns, [1, 0]))
                weight.meta["val"] = columns.meta["val"].t()
                product = graph.call_function(PRODUCT, (rows, weight, bias))
            product.meta.update(node.meta)
            node.replace_all_uses_with(product)
            graph.erase_node(node)
            changed = True
    return changed


def _gainful(bias: Any, rows: Any, columns: Any) -> bool:
    values = [node.meta["val"] for node in (rows, columns, bias) if node is not None]
    if any(v.dtype != torch.float32 or v.device.type != "cpu" for v in values):
        return False
    a, b = values[:2]
    (m, k), n = a.shape, b.shape[1]
    if m * k * n < _LARGE or a.stride() != (k, 1):
        return False
    # One row by the transpose of a weight takes oneDNN two passes over the weight.
    fits = m > 1 if b.stride() == (n, 1) else b.stride() == (1, k)
    return (
        min(k, n) > 1 and fits and (bias is None or (bias.meta["val"].shape, bias.meta["val"].stride()) == ((n,), (1,)))
    )


def _sums_in_place(graph: torch.fx.Graph) -> bool:
    """Add an embedding's gradient to the product's where its weight is tied to a linear layer's.

    Torch fills a table with zeros, adds the few rows to it, and adds the table to the other: by `index_put` in 2.11.0,
    and with a mask of the indices that count in 2.15.0.
    """
    changed = False
    for operator in _PUTS:
        for put in graph.find_nodes(op="call_function", target=operator):
            if (product := _summed_with(put)) is None:
                continue
            (total,) = put.users
            with graph.inserting_before(total):
                result = _added(graph, product, put)
            if result is None:
                continue
            result.meta.update(total.meta)
            total.replace_all_uses_with(result)
            graph.erase_node(total)
            graph.erase_node(put)
            changed = True
    if changed:
        graph.eliminate_dead_code()
    return changed


def _summed_with(put: torch.fx.Node) -> torch.fx.Node | None:
    """The product that a table of zeros with rows is added to and nothing else reads, if there is one."""
    table, total = put.args[0], next(iter(put.users), None)
    if not isinstance(table, torch.fx.Node) or table.target is not _aten.full.default or table.args[1] != 0:
        return None
    if total is None or len(put.users) != 1 or total.target is not _aten.add.Tensor or total.kwargs:
        return None
    for product in total.args:
        if isinstance(product, torch.fx.Node) and product.target in (_aten.mm.default, PRODUCT):
            new, old = product.meta["val"], put.meta["val"]
            if len(product.users) == 1 and (new.shape, new.dtype) == (old.shape, old.dtype):
                return product
    return None


def _added(graph: torch.fx.Graph, product: torch.fx.Node, put: torch.fx.Node) -> torch.fx.Node | None:
    """The product with the rows that an operator adds to its table, or None where it is not known how."""
    call = graph.call_function
    if put.target is _aten.index_put.default:
        added = len(put.args) == 4 and put.args[3] is True
        return call(_aten.index_put.default, (product, *put.args[1:])) if added else None
    _, mask, indices, values = cast(tuple[Any, ...], put.args)
    index = indices[0]
    if len(indices) != 1 or index is None:
        return None
    at, rank = index.meta["val"].shape, values.meta["val"].ndim
    if mask.meta["val"].shape != (*at, *[1] * (rank - len(at))):  # the rows that are added, not parts of them
        return None
    flat = call(_aten.view.default, (mask, list(at)))
    flat.meta["val"] = mask.meta["val"].view(at)
    # An index that the mask leaves out may be any number, and nothing checks it.
    rows, inside = (_where(graph, *pair) for pair in ((mask, values), (flat, index)))
    return call(_aten._unsafe_index_put.default, (product, [inside], rows, True))


def _where(graph: torch.fx.Graph, mask: torch.fx.Node, given: torch.fx.Node) -> torch.fx.Node:
    """What is given where the mask holds, and 0 elsewhere."""
    value = given.meta["val"]
    zero = graph.call_function(_aten.scalar_tensor.default, (0,), {"dtype": value.dtype, "device": value.device})
    zero.meta["val"] = value.new_empty(())
    kept = graph.call_function(_aten.where.self, (mask, given, zero))
    kept.meta["val"] = value
    return kept

"""Why two trees may differ, said as what to write instead."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

__all__ = ["CAUSES", "Difference", "dtype_name", "shape_of"]


def shape_of(leaf: Any) -> tuple[int, ...]:
    """The shape of a leaf; that of a number is empty."""
    return tuple(getattr(leaf, "shape", ()))


def dtype_name(leaf: Any) -> str:
    """The dtype of a leaf as torch names it, or its type."""
    return str(getattr(leaf, "dtype", type(leaf).__name__)).removeprefix("torch.")


class Difference(NamedTuple):
    """Everything that differs between two trees, by path."""

    what: str
    against: str
    got: dict[str, Any]
    want: dict[str, Any]
    missing: list[str]
    unexpected: list[str]
    kinds: list[str]  # an array or a number where a tensor belongs
    shapes: list[str]
    dtypes: list[str]


# Likely causes, the most specific first: each returns a sentence saying what to write, or None.


def _prefix(d: Difference) -> str | None:
    if not d.missing or not d.unexpected:
        return None
    for longer, shorter, verb in ((d.unexpected, d.missing, "strip"), (d.missing, d.unexpected, "add")):
        known = set(shorter)
        parts = longer[0].split(".")
        for cut in range(1, len(parts)):
            prefix = ".".join(parts[:cut]) + "."
            if all(name.startswith(prefix) and name[len(prefix) :] in known for name in longer):
                change = "k.removeprefix({!r})" if verb == "strip" else "{!r} + k"
                side = "the given" if verb == "strip" else "the wanted"
                return (
                    f"All {side} names share the prefix {prefix!r}: {verb} it, "
                    f"{{{change.format(prefix)}: v for k, v in {d.what}.items()}}."
                )
    return None


def _wrapped(d: Difference) -> str | None:
    for key in ("state_dict", "model", "params", "model_state_dict"):
        inside = [name.removeprefix(key + ".") for name in d.unexpected if name.startswith(key + ".")]
        if d.missing and set(inside) >= set(d.missing):
            return f"The leaves lie under {key!r}: hand over {d.what}[{key!r}]."
    return None


def _empty(d: Difference) -> str | None:
    if d.got or not d.want:
        return None
    return f"{d.what} is empty: make it first, as in `params, state = model.init(key)`."


_BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "position_ids")


def _buffers(d: Difference) -> str | None:
    inside = [name for name in d.unexpected if name.rpartition(".")[2] in _BUFFERS]
    if inside and len(inside) == len(d.unexpected):
        return (
            "The unexpected names are buffers: they belong in state, the second of model.init's results, not in params."
        )
    return None


def _strangers(d: Difference) -> str | None:
    if d.got and len(d.unexpected) == len(d.got) and len(d.missing) == len(d.want) and len(d.want) > 1:
        return (
            f"No name is common to both: {d.what} may belong to another model, or arguments may be swapped; "
            "the order is apply(params, state, x)."
        )
    return None


def _leading_axis(d: Difference) -> str | None:
    if not d.shapes or d.missing or d.unexpected:
        return None
    shapes = [(shape_of(d.got[p]), shape_of(d.want[p])) for p in d.shapes]
    if all(g[1:] == w and g for g, w in shapes) and len({g[0] for g, _ in shapes}) == 1:
        return (
            f"Every one has a leading axis of {shapes[0][0][0]}, an ensemble or a batch: did you mean "
            f"vmap over it? One member is tree.unstack({d.what})[0]."
        )
    if all(w[1:] == g and w for g, w in shapes) and len({w[0] for _, w in shapes}) == 1:
        return (
            f"{d.against} has a leading axis of {shapes[0][1][0]} that {d.what} lacks: stack the members with "
            "tree.stack([...]), or take one with tree.unstack(...)[0]."
        )
    return None


def _transposed(d: Difference) -> str | None:
    for path in d.shapes:
        g, w = shape_of(d.got[path]), shape_of(d.want[path])
        if len(g) >= 2 and g != w and g == (*w[:-2], w[-1], w[-2]):
            return f"{d.what}[{path!r}] looks transposed: torch keeps (out, in), jax and flax (in, out); write leaf.mT."
        if len(g) == 4 and g == (w[2], w[3], w[1], w[0]):
            return f"{d.what}[{path!r}] looks like a jax kernel (h, w, in, out): write leaf.permute(3, 2, 0, 1)."
    return None


def _reshaped(d: Difference) -> str | None:
    for path in d.shapes:
        g, w = shape_of(d.got[path]), shape_of(d.want[path])
        if torch.Size(g).numel() == torch.Size(w).numel():
            return f"{d.what}[{path!r}] has as many elements as it should: write leaf.reshape({w})."
        if 1 in (torch.Size(g).numel(), torch.Size(w).numel()):
            return f"{d.what}[{path!r}] would broadcast, which is never done silently: write leaf.expand(...) if meant."
    return None


def _not_tensors(d: Difference) -> str | None:
    if not d.kinds:
        return None
    return f"Make them tensors: tree.map(torch.as_tensor, {d.what})."


def _dtypes(d: Difference) -> str | None:
    if not d.dtypes:
        return None
    path = d.dtypes[0]
    given, wanted = dtype_name(d.got[path]), dtype_name(d.want[path])
    why = "float64 is what numpy makes by default: " if given == "float64" else "Cast it: "
    return f"{why}tree.cast({d.what}, torch.{wanted})." if "float" in wanted else f"Cast it: leaf.to(torch.{wanted})."


CAUSES: tuple[Callable[[Difference], str | None], ...] = (
    _empty,
    _prefix,
    _wrapped,
    _buffers,
    _strangers,
    _not_tensors,
    _leading_axis,
    _transposed,
    _reshaped,
    _dtypes,
)

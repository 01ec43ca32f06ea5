"""A transformation for each part of the parameters."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from ...tree import PyTree, flatten, leaves_with_path, structure, unflatten
from ...tree.mismatch import match
from ..arguments import mapping, stateful
from ..base import GradientTransformation, with_extra_args_support
from ..simple import set_to_zero
from .masking import MaskedState, chosen, masked, spread, taken, taken_extra

__all__ = [
    "MultiTransformState",
    "PartitionState",
    "freeze",
    "labels_by_name",
    "multi_transform",
    "partition",
    "selective_transform",
]


class PartitionState(NamedTuple):
    """The states of the transformations, by label."""

    inner_states: dict[str, MaskedState]


def partition(
    transforms: Mapping[str, GradientTransformation],
    param_labels: PyTree | Callable[[PyTree], PyTree],
    *,
    mask_compatible_extra_args: bool = False,
) -> GradientTransformation:
    """Give each part of the parameters a transformation of its own.

    Args:
        transforms: the transformations, by label; each sees trees with `MaskedNode()` in the place of the others'
            leaves.
        param_labels: a tree of strings like the parameters, in which a string may also stand for a whole subtree; or a
            function from the parameters to one, such as `labels_by_name` makes.
        mask_compatible_extra_args: see `masked`.

    Raises:
        ValueError: a label has no transformation, or the labels have another structure.

    >>> from funcnet import optim
    >>> params = {"body.weight": torch.ones(1), "body.bias": torch.ones(1)}
    >>> labels = labels_by_name({"*.bias": "plain", "*.weight": "decayed"})
    >>> rule = partition({"plain": optim.sgd(0.1), "decayed": optim.adamw(0.1, weight_decay=1.0)}, labels)
    >>> rule.update(params, rule.init(params), params)[0]
    {'body.weight': tensor([-0.2000]), 'body.bias': tensor([-0.1000])}
    """
    mapping(transforms, "transforms", '{"plain": optim.sgd(0.1)}')
    links = {label: with_extra_args_support(tx) for label, tx in transforms.items()}

    def parts(tree: PyTree) -> dict[str, list[bool]]:
        labels = spread(param_labels, tree, str, "tree of labels")
        unknown = sorted(set(labels) - set(links))
        if unknown:
            raise ValueError(
                f"partition has no transformation for the label {unknown[0]!r}, only for "
                f"{', '.join(repr(label) for label in links)}. Add one; optim.set_to_zero() leaves its leaves alone."
            )
        return {label: [label == own for own in labels] for label in links}

    def init(params: PyTree) -> PartitionState:
        keep = parts(params)
        states = {label: MaskedState(inner_state=tx.init(taken(params, keep[label]))) for label, tx in links.items()}
        return PartitionState(inner_states=states)

    def update(
        updates: PyTree, state: PartitionState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PartitionState]:
        keep = parts(updates)
        values, treedef = flatten(updates)
        if params is not None:  # in the order of the updates, which is that of the labels
            params = unflatten(treedef, match(params, updates, "params", "updates"))
        if state.inner_states.keys() != links.keys():
            raise ValueError(
                f"partition got a state with the labels {list(state.inner_states)} for transformations with "
                f"{list(links)}: pass what init(params) of this optimizer returned."
            )
        merged, states = list(values), {}
        for label, tx in links.items():
            own = None if params is None else taken(params, keep[label])
            inner_state = state.inner_states[label].inner_state
            given = taken_extra(extra, updates, keep[label]) if mask_compatible_extra_args else extra
            seen = taken(updates, keep[label])
            new, inner_state = tx.update(seen, inner_state, own, **given)
            changed = iter(match(new, seen, "the new updates", "updates", shape=False))  # which may be in another order
            merged = [next(changed) if kept else v for kept, v in zip(keep[label], merged, strict=True)]
            states[label] = MaskedState(inner_state=inner_state)
        return unflatten(treedef, merged), PartitionState(inner_states=states)

    return stateful(PartitionState, init, update)


multi_transform = partition
MultiTransformState = PartitionState


def labels_by_name(patterns: Mapping[str, str]) -> Callable[[PyTree], PyTree]:
    """Label leaves by globs over their dotted names (`*` crosses dots), for `partition`.

    Raises `ValueError` for a leaf that matches no pattern, or patterns of two labels.

    >>> labels_by_name({"*.bias": "plain", "*.weight": "decayed"})({"fc": {"weight": 1.0, "bias": 2.0}})
    {'fc': {'weight': 'decayed', 'bias': 'plain'}}
    """
    mapping(patterns, "patterns", '{"*.bias": "plain", "*.weight": "decayed"}')

    def label(name: str) -> str:
        found = {own for glob, own in patterns.items() if fnmatchcase(name, glob)}
        if len(found) != 1:
            what = f"patterns of {len(found)} labels ({', '.join(sorted(found))})" if found else "no pattern"
            raise ValueError(
                f"the leaf {name!r} matches {what} of {list(patterns)}, and needs exactly one label: make the patterns "
                "disjoint, with one for all that is left, such as '*.weight'."
            )
        return found.pop()

    return lambda tree: unflatten(structure(tree), [label(name) for name, _ in leaves_with_path(tree)])


def freeze(mask: bool | PyTree) -> GradientTransformation:
    """Make the updates of the leaves at True zero, and leave the others.

    Raises `ValueError` where the mask has another structure. What is frozen still takes part in norms and moments of
    the links before; `tree.split` before differentiating spares that, and the gradients.

    >>> updates, rule = {"a": torch.ones(1), "b": torch.ones(1)}, freeze({"a": True, "b": False})
    >>> rule.update(updates, rule.init(updates))[0]
    {'a': tensor([0.]), 'b': tensor([1.])}
    """
    return masked(set_to_zero(), mask, outside="unchanged")


def selective_transform(optimizer: GradientTransformation, *, freeze_mask: bool | PyTree) -> GradientTransformation:
    """Let an optimizer see only the leaves at False; the updates of those at True are zero.

    Raises `ValueError` where the mask has another structure.

    >>> from funcnet import optim
    >>> rule = selective_transform(optim.sgd(0.5), freeze_mask={"a": True, "b": False})
    >>> params = {"a": torch.ones(1), "b": torch.ones(1)}
    >>> rule.update(params, rule.init(params), params)[0]
    {'a': tensor([0.]), 'b': tensor([-0.5000])}
    """

    def trained(tree: PyTree) -> PyTree:
        return unflatten(structure(tree), [not frozen for frozen in chosen(freeze_mask, tree)])

    return masked(optimizer, trained, outside="zero")

"""No optimizer is forgotten: each is in the registry, or excused with the place where its promises are tested."""

import inspect
import sys
from pathlib import Path

import pytest
import torch

import funcnet
from funcnet import optim, tree

sys.path.insert(0, str(Path(__file__).parent))
from registry import LINKS, OPTIMIZERS

EXCUSED = {
    "chain named_chain stateless stateless_with_tree_map with_extra_args with_extra_args_support masked labels_by_name "
    "selective_transform lookahead inject_hyperparams inject_stateful_hyperparams snapshot monitor measure_with_ema "
    "multi_transform scale_by_schedule": "test_wrappers",
    "from_torch": "test_from_torch",
    "differentially_private_aggregate dpsgd": "test_private",
    "soap scale_by_soap": "test_soap",
    "scale_by_backtracking_linesearch scale_by_zoom_linesearch": "test_lbfgs",
    "hutchinson_estimator_diag_hessian": "test_hutchinson",
    # Under the names of the optimizers that they make.
    "scale_by_dog scale_by_dowg scale_by_muon scale_by_sophia": "cases_contrib",
}


def factories():
    for name, value in (vars(optim) | vars(optim.contrib)).items():
        returns = str(inspect.signature(value).return_annotation) if inspect.isfunction(value) else ""
        if "GradientTransformation" in returns and not name.startswith("_"):
            yield name


def test_every_transformation_is_in_the_registry_or_excused():
    listed = {case.name for case in OPTIMIZERS + LINKS}
    assert set(factories()) - listed - set(" ".join(EXCUSED).split()) == set()
    assert len(set(factories())) > 100
    for room in EXCUSED.values():
        assert (Path(__file__).parent / f"{room}.py").exists()


ABSENT = {
    "differentially_private_aggregate DifferentiallyPrivateAggregateState dpsgd": "names of `contrib`, deprecated",
    "microbatch microbatching": "gradients of large batches are a scan of the caller's; accumulation is `multi_steps`",
    "experimental": "optax promises nothing of it",
    "multi_normal": "a distribution, left over from optax's `monte_carlo`, which is gone; `funcnet.random` draws",
}
ROOMS = "assignment contrib losses perturbations projections schedules second_order transforms tree tree_utils"


def public(module):
    return {name for name in [*dir(module), *getattr(module, "__all__", ())] if not name.startswith("_")}


def test_every_name_of_optax_is_here_or_excused():
    optax = pytest.importorskip("optax")
    excused = set(" ".join(ABSENT).split())
    assert public(optax) - public(optim) == excused
    for room in ROOMS.split():
        assert public(getattr(optax, room)) - public(getattr(optim, room)) <= {"functools", "typing"}, room
    assert len(public(optax)) > 200


def test_trees_have_optaxs_names_and_arguments():
    optax = pytest.importorskip("optax")
    names = {name for name in dir(optax.tree) if not name.startswith("_")}
    assert names <= set(dir(optim.tree))
    assert len(names) > 30
    compared = 0
    for name in names:
        ours, theirs = getattr(optim.tree, name), getattr(optax.tree, name)
        assert getattr(optim.tree_utils, f"tree_{name}") is ours
        mine, other = (inspect.signature(f).parameters for f in (ours, theirs))
        assert [(p.name, p.kind) for p in mine.values()] == [(p.name, p.kind) for p in other.values()], name
        for key, parameter in other.items():
            assert callable(parameter.default) or mine[key].default == parameter.default, (name, key)
            compared += 1
    assert compared > 60
    assert {name for name in dir(optax.tree_utils) if name.startswith("tree_")} <= set(dir(optim.tree_utils))
    assert optim.tree_utils.NamedTupleKey("A", "b") == optim.tree_utils.NamedTupleKey(tuple_name="A", name="b")
    with pytest.raises(AttributeError, match=r"tree_utils has no tree_l2_norm: it has tree_add, tree_add_scale"):
        optim.tree_utils.tree_l2_norm  # noqa: B018


def test_the_librarys_own_trees_keep_their_name():
    assert funcnet.tree is tree
    assert tree is not optim.tree
    assert tree.cast({"n": torch.tensor(1)}, torch.float32)["n"].dtype == torch.int64

"""DTensors go through optimizers: they stay where they are, and have the plain tensors' values."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from running import close
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from funcnet import optim, random, tree

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch is built without gloo")

SHAPES = {"bias": (4,), "scale": (), "square": (4, 4), "weight": (6, 4)}
PLACES = {"bias": Replicate(), "scale": Replicate(), "square": Shard(1), "weight": Shard(0)}
RULES = {
    "adam": lambda: optim.adam(0.1),
    "adamw": lambda: optim.adamw(optim.cosine_decay_schedule(0.1, 10), weight_decay=0.1),
    "sgd": lambda: optim.sgd(0.1, momentum=0.9),
    "rmsprop": lambda: optim.rmsprop(0.1, centered=True, momentum=0.9),
    "lion": lambda: optim.lion(0.1),
    "clipped": lambda: optim.chain(optim.clip_by_global_norm(1.0), optim.adam(0.1)),
    "lamb": lambda: optim.lamb(0.1),
    "adafactor": lambda: optim.adafactor(0.1, min_dim_size_to_factor=2, momentum=0.9),
    "soap": lambda: optim.contrib.soap(0.1, max_precond_dim=4),  # no axis has eigenvalues of 0, whose vectors are open
}


def drawn(seed):
    return {name: random.normal(random.fold_in(random.key(seed), i), s) for i, (name, s) in enumerate(SHAPES.items())}


def put(tensors, mesh, places=PLACES):
    return {name: distribute_tensor(x, mesh, [places[name]]) for name, x in tensors.items()}


def alike(grads, mesh):
    """Placed as the parameters are."""
    return put(grads, mesh)


def due(grads, mesh):
    """Sums still due, as gradients are of replicated parameters for a batch in shards."""
    return tree.map(lambda g: DTensor.from_local(g / mesh.size(), mesh, [Partial()]), grads)


def across(grads, mesh):
    """Sharded along another axis."""
    return put(grads, mesh, {"bias": Shard(0), "scale": Replicate(), "square": Shard(0), "weight": Shard(1)})


def full(tensors):
    return tree.map(lambda leaf: leaf.full_tensor() if isinstance(leaf, DTensor) else leaf, tensors)


def places(tensors):
    return [(path, getattr(leaf, "placements", None)) for path, leaf in tree.leaves_with_path(tensors)]


def kept(state):
    """The placements of a state but for SOAP's matrices: eigenvectors are replicated."""
    return [(path, found) for path, found in places(state) if "covariances" not in path and "bases" not in path]


def updated(rule, grads, state, params):
    updates, state = rule.update(grads, state, params)
    return optim.apply_updates(params, updates), state


def compare(name, step, given, mesh):
    rule, params = RULES[name](), drawn(0)
    state, spread = rule.init(params), put(params, mesh)
    spread_state = rule.init(spread)
    before, state_before = places(spread), kept(spread_state)
    assert all(found is not None for path, found in state_before if not path.endswith("count"))
    if name == "adam":
        assert state_before[1:] == [(f"0.{mean}.{path}", found) for mean in ("mu", "nu") for path, found in before]
    for seed in range(1, 4):
        grads = drawn(seed)
        params, state = step(rule, grads, state, params)
        spread, spread_state = step(rule, given(grads, mesh), spread_state, spread)
        assert places(spread) == before
        close(full(spread), params)
        assert kept(spread_state) == state_before
        close(full(spread_state), state)


@pytest.fixture(scope="module")
def mesh():
    assert not dist.is_initialized()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.parametrize("given", [alike, due, across])
@pytest.mark.parametrize("step", [updated, optim.advance])
@pytest.mark.parametrize("name", RULES)
def test_placements_stay_and_values_are_the_plain_tensors(mesh, name, step, given):
    compare(name, step, given, mesh)


def test_donation_leaves_distributed_tensors_alone(mesh):
    rule, plain = optim.adam(0.1), drawn(0)
    params = put(plain, mesh)
    state = rule.init(params)
    new, _ = optim.advance(rule, put(drawn(1), mesh), state, params, donate=True)
    close(full(params), plain)
    close(full(state), rule.init(plain))
    close(full(new), optim.advance(rule, drawn(1), rule.init(plain), plain)[0])


def work(rank, path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(path, 2), rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    for name in RULES:
        compare(name, updated, alike, mesh)
        compare(name, optim.advance, due, mesh)
        compare(name, optim.advance, across, mesh)
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path):
    mp.spawn(work, (os.fspath(tmp_path / "store"),), nprocs=2)

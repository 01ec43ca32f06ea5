"""Saving and loading a tree: round trips, what is refused, what is said of a file that does not fit."""

import json
import sys
import warnings
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from safetensors.torch import save as reference
from torch import nn
from torch._subclasses import FakeTensorMode

from funcnet import Model, TrainState, checkpoint, jit, make_step, optim, random, tree
from funcnet.checkpoint import CheckpointError, Report, saving
from funcnet.checkpoint.tensorfile import CODES, DTYPES, chunks, stored

sys.path.insert(0, str(Path(__file__).parent.parent / "optim"))
from registry import LINKS
from registry import OPTIMIZERS as RULES
from running import example, steps

REGISTERED = [*RULES, *LINKS]
HOLDABLE = [dtype for dtype in DTYPES.values() if stored(dtype, ()) is not None]
# Kinds of numbers that torch has hardly an operation for, not even a warning-free way to make them.
COMMON = [dtype for dtype in CODES.values() if dtype.itemsize > 1 or dtype in (torch.bool, torch.uint8, torch.int8)]


def bits(tensor):
    """The bytes of a tensor's values in logical order, which tell nan from nan."""
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8) if flat.numel() else flat.new_zeros(0, dtype=torch.uint8)


def same(a, b):
    """Whether two trees are equal in structure, types, and bits."""
    if tree.structure(a) != tree.structure(b):
        return False
    for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True):
        if isinstance(x, torch.Tensor):
            if type(y) is not torch.Tensor or (x.dtype, x.shape) != (y.dtype, y.shape) or not bits(x).equal(bits(y)):
                return False
        elif type(x) is not type(y) or repr(x) != repr(y):
            return False
    return True


def filled(seed, shape, dtype):
    """A tensor of any dtype whose bits are drawn from a key."""
    count = torch.Size(shape).numel() * dtype.itemsize
    raw = random.bits(random.key(seed), (count // 4 + 1,)).view(torch.uint8)[:count]
    if dtype is torch.bool:
        raw = raw % 2
    return (raw.clone().view(dtype) if count else torch.empty(0, dtype=dtype)).reshape(shape)


def normal(seed, *shape):
    return random.normal(random.key(seed), shape)


class Moments(NamedTuple):
    mean: Any
    count: Any


@tree.register_dataclass
@dataclass
class Pair:
    left: Any
    right: Any = None


shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
tensors = st.builds(filled, st.integers(0, 2**31 - 1), shapes, st.sampled_from(COMMON))
scalars = st.integers() | st.floats() | st.booleans() | st.text(max_size=5)
# Keys without dots and of one type, so that no two leaves have one path.
keys = st.text(st.characters(codec="utf-8", exclude_characters="."), min_size=1, max_size=5).filter(
    "__metadata__".__ne__
)
trees = st.recursive(
    tensors | scalars | st.none(),
    lambda inner: (
        st.dictionaries(keys, inner, max_size=3)
        | st.dictionaries(st.integers(), inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=3).map(OrderedDict)
        | st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.builds(Moments, inner, inner)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=8,
)


@given(trees)
@settings(max_examples=60)
def test_a_tree_comes_back_in_structure_types_and_bits(tmp_path_factory, saved):
    folder = checkpoint.save(tmp_path_factory.mktemp("round") / "a", saved)
    assert same(saved, checkpoint.load(folder, types=(Moments, Pair)))
    if saved is not None:
        like = tree.map(lambda leaf: leaf.to("meta") if isinstance(leaf, torch.Tensor) else leaf, saved)
        assert same(saved, checkpoint.load(folder, like))


@pytest.mark.filterwarnings("ignore:.*Complex32 support is experimental", "ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", HOLDABLE, ids=str)
def test_every_dtype(tmp_path, dtype):
    saved = {"a": filled(3, (2, 3), dtype), "b": filled(4, (), dtype), "c": filled(5, (0, 2), dtype)}
    folder = checkpoint.save(tmp_path / "a", saved)
    assert same(saved, checkpoint.load(folder))
    assert same(saved, checkpoint.load(saving.write(saving.prepare(saved, copy=True), folder)))
    in_file = load_file(folder / "tensors.safetensors") if dtype not in (torch.float8_e8m0fnu,) else None
    if in_file is not None:
        assert all(bits(in_file[name]).equal(bits(saved[name])) for name in saved)
    info = json.loads((folder / "manifest.json").read_text())["tensors"]["a"]
    assert ("stored" in info) == (dtype not in CODES.values())


@pytest.mark.parametrize("dtype", [torch.qint8, torch.quint8])
def test_quantized_tensors_are_refused_by_path(tmp_path, dtype):
    with warnings.catch_warnings():  # torch calls them deprecated, once a process
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(normal(0, 3), 0.1, 0, dtype)
    with pytest.raises(TypeError, match=r"'a\.q' is torch\.q.*int_repr"):
        checkpoint.save(tmp_path / "a", {"a": {"q": quantized}})


@given(st.dictionaries(keys, tensors, max_size=6))
def test_the_file_of_tensors_is_what_safetensors_would_write(saved):
    assert b"".join(chunks(saved)) == reference({name: t.contiguous() for name, t in saved.items()})


def test_shared_expanded_and_strided_leaves_are_written_as_values(tmp_path):
    w = normal(1, 4, 6)
    saved = {"w": w, "t": w.T, "cut": w[1:3, ::2], "same": w, "wide": w[0].expand(5, 6), "conj": (w * 1j).conj()}
    saved["negative"] = saved["conj"].imag
    saved["grad"] = nn.Parameter(w)
    loaded = checkpoint.load(checkpoint.save(tmp_path / "a", saved))
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)
    assert len({leaf.untyped_storage().data_ptr() for leaf in loaded.values()}) == len(saved)
    assert all(leaf.untyped_storage().nbytes() == leaf.numel() * leaf.element_size() for leaf in loaded.values())
    assert type(loaded["grad"]) is torch.Tensor
    assert loaded["t"].stride() == w.T.stride()


def test_channels_last_stays_so(tmp_path):
    saved = {"w": normal(1, 4, 3, 2, 2).to(memory_format=torch.channels_last), "b": normal(2, 4, 1, 3, 3)}
    saved["b"] = saved["b"].to(memory_format=torch.channels_last)
    loaded = checkpoint.load(checkpoint.save(tmp_path / "a", saved), saved)
    assert {name: leaf.stride() for name, leaf in loaded.items()} == {n: leaf.stride() for n, leaf in saved.items()}
    assert same(saved, loaded)


def loss(params, state, batch, key):
    return sum((p - batch.mean()).square().sum() for p in params.values()) + 0 * random.normal(key), (state, {})


GROUPS = {"w": "fast", "b": "slow"}
OPTIMIZERS = {
    "adamw": lambda: optim.adamw(optim.cosine_decay_schedule(0.1, 10)),
    "chain": lambda: optim.chain(optim.clip_by_global_norm(1.0), optim.scale_by_adam(), optim.scale(-0.1)),
    "groups": lambda: optim.partition({"fast": optim.adamw(0.1), "slow": optim.sgd(0.1, momentum=0.9)}, GROUPS),
    "injected": lambda: optim.inject_hyperparams(optim.adam)(learning_rate=0.1),
    "accumulated": lambda: optim.multi_steps(optim.adam(0.1), 2),
    "finite": lambda: optim.apply_if_finite(optim.lamb(0.1), 3),
    "masked": lambda: optim.masked(optim.adam(0.1), {"w": True, "b": False}, outside="zero"),
    "lbfgs": lambda: optim.scale_by_lbfgs(3),
}


@pytest.mark.parametrize("case", REGISTERED, ids=str)
def test_the_state_of_every_registered_optimizer(tmp_path, case):
    params, gradient = example(), example(1)
    _, state = steps(case.build(optim), params, [gradient], case=case)
    folder = checkpoint.save(tmp_path / "a", state)
    assert same(state, checkpoint.load(folder))
    assert same(state, checkpoint.load(folder, tree.map(torch.zeros_like, state)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_train_state_goes_on_bit_for_bit(tmp_path, name):
    optimizer = OPTIMIZERS[name]()
    step = make_step(loss, optimizer)
    params = {"w": normal(1, 2, 3), "b": normal(2, 3)}
    ts = TrainState.create(params, {"running": normal(3, 2)}, optimizer, random.key(5))
    ts, _ = step(ts, normal(4, 3))
    folder = checkpoint.save(tmp_path / "a", ts, step=1)
    fresh = TrainState.create(params, {"running": normal(3, 2)}, optimizer, random.key(0))
    for loaded in (checkpoint.load(folder, fresh), checkpoint.load(folder)):
        assert same(ts, loaded)
        assert same(step(ts, normal(6, 3))[0], step(loaded, normal(6, 3))[0])


def test_a_donating_step_takes_what_was_loaded(tmp_path):
    optimizer = optim.adamw(0.1)
    step = make_step(loss, optimizer)
    ts = TrainState.create({"w": normal(1, 2, 3)}, {}, optimizer, random.key(5))
    donating = jit(step, donate=0, backend="eager")
    ts, _ = donating(ts, normal(4, 3))
    folder = checkpoint.save(tmp_path / "a", ts)
    want, _ = donating(ts, normal(6, 3))
    want = tree.map(torch.clone, want)
    assert same(want, donating(checkpoint.load(folder), normal(6, 3))[0])
    with pytest.raises(RuntimeError, match="was donated"):
        checkpoint.save(tmp_path / "b", ts)


def test_like_may_be_fake_and_decides_the_containers(tmp_path):
    folder = checkpoint.save(tmp_path / "a", {"a": [normal(1, 3)], "n": 2})
    with FakeTensorMode():
        like = OrderedDict(n=0, a=Moments(torch.empty(3), None))
    loaded, report = checkpoint.load(folder, like, strict=False)
    assert report.missing == ("a.mean",)
    like = OrderedDict(n=0, a=(like["a"].mean,))
    loaded = checkpoint.load(folder, like)
    assert type(loaded) is OrderedDict
    assert list(loaded) == ["n", "a"]
    assert torch.equal(loaded["a"][0], normal(1, 3))


def test_the_manifest_says_what_was_saved(tmp_path):
    position = {"epoch": 3, "batch": [1, 2], "rate": float("inf")}
    metrics = {"loss": torch.tensor(0.5), "worst": float("nan"), "n": 3}
    folder = checkpoint.save(
        tmp_path / "deep" / "a", {"w": normal(1, 2)}, step=7, position=position, metrics=metrics, extra=["x", None]
    )
    manifest = checkpoint.read_manifest(folder)
    assert (manifest.step, manifest.position, manifest.extra) == (7, position, ["x", None])
    assert manifest.metrics["loss"] == 0.5
    assert manifest.metrics["worst"] != manifest.metrics["worst"]
    assert manifest.tensors == {"w": checkpoint.TensorInfo(torch.float32, (2,))}
    assert manifest.torch == str(torch.__version__)
    json.loads((folder / "manifest.json").read_text(), parse_constant=pytest.fail)  # other readers know no NaN


def test_a_checkpoint_is_replaced_and_nothing_else_is(tmp_path):
    folder = checkpoint.save(tmp_path / "a", {"w": normal(1, 2)})
    checkpoint.save(folder, {"v": normal(2, 2)})
    assert list(checkpoint.load(folder)) == ["v"]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="something else than a checkpoint"):
        checkpoint.save(folder, {})
    with pytest.raises(FileExistsError, match="something else than a checkpoint"):
        checkpoint.save(tmp_path, {})
    assert (folder / "notes.txt").exists()


Odd = namedtuple("Odd", "x")  # what older code has
REFUSED = {
    "an array": ({"a": [normal(0, 2).numpy()]}, TypeError, r"'a\.0' is array.*as_tensor"),
    "a function": ({"f": len}, TypeError, "'f' is .*keep functions"),
    "numpy's float": ({"a": normal(0, 2).numpy()[0]}, TypeError, "'a' is .*float32"),
    "meta": ({"a": torch.empty(2, device="meta")}, TypeError, "'a' is on the meta device"),
    "sparse": ({"a": normal(0, 2, 2).to_sparse()}, TypeError, "'a' is sparse"),
    "a subclass": ({"a": torch.ones(2).as_subclass(type("Mine", (torch.Tensor,), {}))}, TypeError, "'a' is a Mine"),
    "tuple keys": ({("a", 1): 2}, TypeError, "the key .*a tuple"),
    "one path twice": ({"a.b": 1, "a": {"b": 2}}, ValueError, r"two leaves have the path 'a\.b'"),
    "the format's name": ({"__metadata__": torch.ones(2)}, TypeError, "the format's own"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_file_can_hold_is_refused_by_path(tmp_path, what):
    saved, error, message = REFUSED[what]
    with pytest.raises(error, match=message):
        checkpoint.save(tmp_path / "a", saved)
    assert list(tmp_path.iterdir()) == []


def test_a_transform_s_tensor_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"'w' belongs to a torch\.func transform"):
        torch.func.vmap(lambda w: checkpoint.save(tmp_path / "a", {"w": w}))(normal(0, 2))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"step": torch.tensor(1)}, "write int"),
        ({"step": -1}, "at least 0"),
        ({"position": {1, 2}}, r"position is .*a set"),
        ({"position": {"at": [normal(0, 2)]}}, r"position\['at'\]\[0\] is .*tolist"),
        ({"extra": {1: 2}}, "names for keys"),
        ({"metrics": {"loss": normal(0, 2)}}, r"metrics\['loss'\] is a Tensor"),
    ],
)
def test_what_the_manifest_cannot_hold(tmp_path, given, message):
    with pytest.raises(TypeError, match=message):
        checkpoint.save(tmp_path / "a", {}, **given)


def test_a_mismatch_names_paths_shapes_and_dtypes(tmp_path):
    folder = checkpoint.save(tmp_path / "a", {"head": {"weight": normal(1, 2, 3), "b": normal(2, 3)}, "n": 1})
    like = {"heads": {"weight": normal(1, 2, 3)}, "head": {"b": normal(2, 2, 4).double()}, "n": 1.0}
    with pytest.raises(tree.TreeMismatchError) as error:
        checkpoint.load(folder, like)
    said = str(error.value)
    assert "missing: 'heads.weight' (near 'head.weight')" in said
    assert "mismatched: 'head.b', float32 (3,) in the file, float64 (2, 4) wanted" in said
    assert "'n', int in the file, float wanted" in said
    loaded, report = checkpoint.load(folder, like, strict=False)
    assert loaded["heads"]["weight"] is like["heads"]["weight"]
    assert report == Report(
        (), ("heads.weight",), ("head.weight",), {"head.b": "float32 (3,) in the file, float64 (2, 4) wanted",
                                                 "n": "int in the file, float wanted"},
    )  # fmt: skip
    assert str(report).startswith("0 matched, 1 missing, 1 unexpected, 2 mismatched")


def test_a_part_by_name(tmp_path):
    body = {f"body.{i}.weight": normal(i, 2, 2) for i in range(3)}
    folder = checkpoint.save(tmp_path / "a", {"params": {**body, "fc.weight": normal(7, 3)}})
    start = {"params": {**{name: normal(9, 2, 2) for name in body}, "fc.weight": normal(8, 5)}}
    loaded, report = checkpoint.load(folder, start, names="params.body.[01].*")
    assert report.matched == ("params.body.0.weight", "params.body.1.weight")
    assert report.missing == ("params.body.2.weight", "params.fc.weight")
    assert torch.equal(loaded["params"]["body.1.weight"], body["body.1.weight"])
    assert loaded["params"]["fc.weight"] is start["params"]["fc.weight"]
    loaded, report = checkpoint.load(folder, start["params"], names={"params.body.*.weight": "body.*.weight"})
    assert torch.equal(loaded["body.2.weight"], body["body.2.weight"])
    with pytest.raises(tree.TreeMismatchError, match=r"'params\.fc\.weight', float32 \(3,\) in the file"):
        checkpoint.load(folder, start, names=("params.body.*", "params.fc.*"))
    with pytest.raises(tree.UnknownNameError, match=r"matches 'params.bdy.\*'.*near it: 'params\.body"):
        checkpoint.load(folder, start, names="params.bdy.*")
    with pytest.raises(ValueError, match="the same name, 'x'"):
        checkpoint.load(folder, start, names={"params.body.*": "x"})
    with pytest.raises(ValueError, match="as many"):
        checkpoint.load(folder, start, names={"params.body": "*.x"})
    with pytest.raises(TypeError, match="need like="):
        checkpoint.load(folder, names="*")


def test_classes_are_rebuilt_only_where_allowed(tmp_path):
    folder = checkpoint.save(tmp_path / "a", {"m": Moments(normal(1, 2), 3)})
    with pytest.raises(CheckpointError, match=r"'m' is a .*:Moments, and nothing is imported.*types=\(Moments,\)"):
        checkpoint.load(folder)
    assert same(checkpoint.load(folder, types=[Moments]), {"m": Moments(normal(1, 2), 3)})
    assert checkpoint.load(folder, {"m": Odd(normal(1, 2))}, strict=False)[1].missing == ("m.x",)


def test_params_and_state_of_a_model(tmp_path):
    model = Model(nn.BatchNorm1d, 4)
    params, state = model.init(random.key(1))
    folder = checkpoint.save(tmp_path / "a", (params, state))
    assert same(checkpoint.load(folder, model.init(random.key(2))), (params, state))


def test_loading_to_a_device(tmp_path):
    folder = checkpoint.save(tmp_path / "a", {"w": normal(1, 2), "n": 1})
    assert checkpoint.load(folder, device="meta")["w"].is_meta
    assert checkpoint.load(folder, {"w": normal(1, 2), "n": 1}, device="meta")["w"].is_meta

"""Weights that others wrote: safetensors, sharded safetensors, torch files; put into a model's tensors."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from funcnet import Model, checkpoint, make_step, optim, random, tree
from funcnet.checkpoint import CheckpointError


def normal(seed, *shape):
    return random.normal(random.key(seed), shape)


WEIGHTS = {"a.weight": normal(1, 3, 2), "a.bias": normal(2, 3), "b": normal(3, 4).bfloat16()}


def equal(a, b):
    return list(a) == list(b) and all(a[name].dtype == b[name].dtype and a[name].equal(b[name]) for name in a)


def test_a_safetensors_file(tmp_path):
    save_file(WEIGHTS, tmp_path / "m.safetensors", {"format": "pt"})
    loaded = checkpoint.load_state_dict(tmp_path / "m.safetensors")
    assert equal(dict(sorted(loaded.items())), dict(sorted(WEIGHTS.items())))


def sharded(folder, places, **shards):
    for shard, names in shards.items():
        save_file({name: WEIGHTS[name] for name in names}, folder / f"{shard}.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


def test_shards(tmp_path):
    places = {"a.weight": "one.safetensors", "b": "two.safetensors", "a.bias": "two.safetensors"}
    index = sharded(tmp_path, places, one=["a.weight"], two=["b", "a.bias"])
    assert equal(checkpoint.load_state_dict(index), {name: WEIGHTS[name] for name in places})
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"cannot be read: .*two\.safetensors"):
        checkpoint.load_state_dict(index)


@pytest.mark.parametrize(
    "shard", ["../one.safetensors", "/etc/one.safetensors", "sub/one.safetensors", "..\\one.safetensors", "one.pt",
              "C:one.safetensors", 3, None, "one.safetensors\0.safetensors"],
)  # fmt: skip
def test_shards_stay_in_their_folder(tmp_path, shard):
    (tmp_path / "in").mkdir()
    save_file({"a.weight": WEIGHTS["a.weight"]}, tmp_path / "one.safetensors")
    index = sharded(tmp_path / "in", {"a.weight": shard})
    with pytest.raises(CheckpointError, match="no file of its folder"):
        checkpoint.load_state_dict(index)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": 3}', "\x00"])
def test_an_index_that_is_none(tmp_path, text):
    (tmp_path / "m.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"no weight_map|no valid JSON"):
        checkpoint.load_state_dict(tmp_path / "m.safetensors.index.json")


def test_an_index_that_names_what_its_shard_lacks(tmp_path):
    index = sharded(tmp_path, {"a.weight": "one.safetensors", "b": "one.safetensors"}, one=["a.weight"])
    with pytest.raises(CheckpointError, match=r"lacks 'b', which the index says"):
        checkpoint.load_state_dict(index)


@pytest.mark.parametrize("wrap", [dict, lambda w: {"state_dict": w, "epoch": 3}], ids=["bare", "wrapped"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_a_torch_file(tmp_path, wrap, prefix):
    torch.save(wrap({prefix + name: nn.Parameter(t) for name, t in WEIGHTS.items()}), tmp_path / "m.pt")
    loaded = checkpoint.load_state_dict(tmp_path / "m.pt")
    assert equal(loaded, WEIGHTS)
    assert all(type(leaf) is torch.Tensor and not leaf.requires_grad for leaf in loaded.values())


def test_a_prefix_stays_unless_every_name_has_it(tmp_path):
    torch.save({"module.w": normal(1, 2), "b": normal(2, 2)}, tmp_path / "m.pt")
    assert list(checkpoint.load_state_dict(tmp_path / "m.pt")) == ["module.w", "b"]


def test_tied_tensors_of_a_torch_file_share_no_memory(tmp_path):
    w = normal(1, 3, 2)
    torch.save({"a": w, "b": w, "row": w[1]}, tmp_path / "m.pt")
    loaded = checkpoint.load_state_dict(tmp_path / "m.pt")
    assert equal(loaded, {"a": w, "b": w, "row": w[1]})
    assert len({leaf.untyped_storage().data_ptr() for leaf in loaded.values()}) == 3


class Bomb:
    def __reduce__(self):
        return (open, ("exploded", "w"))


@pytest.mark.parametrize("zipped", [True, False])
def test_no_pickle_is_run(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    if zipped:
        torch.save({"w": Bomb()}, "m.pt")
    else:
        (tmp_path / "m.pt").write_bytes(pickle.dumps({"w": Bomb()}))
    with pytest.raises(CheckpointError, match="weights_only=True or not at all"):
        checkpoint.load_state_dict("m.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt"]


@pytest.mark.filterwarnings("ignore:Validating sparse tensor", "ignore:Sparse invariant checks")  # 2.15, 2.11
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([normal(1, 2)], "holds a list"),
        ({"model": {"w": normal(1, 2)}, "epoch": 1}, r"'model' is a dict.*Dicts lie under \['model'\]"),
        ({"w": 3}, "'w' is a int"),
        ({3: normal(1, 2)}, "3 is a Tensor"),
        ({"w": normal(1, 2, 2).to_sparse()}, "'w' is sparse"),
    ],
)
def test_torch_files_of_other_things(tmp_path, content, message):
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load_state_dict(tmp_path / "m.pt")


def test_folders_and_absent_files(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot be read: .*No such file"):
        checkpoint.load_state_dict(tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="is a folder without weights"):
        checkpoint.load_state_dict(tmp_path)
    save_file(WEIGHTS, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=r"write load_state_dict\('.*m\.safetensors'\)"):
        checkpoint.load_state_dict(tmp_path)
    with pytest.raises(CheckpointError, match=r"write checkpoint\.load"):
        checkpoint.load_state_dict(checkpoint.save(tmp_path / "c", {}))


class Net(nn.Module):
    """Tied weights, a buffer that is saved and one that is not."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("positions", torch.arange(4), persistent=False)

    def forward(self, x):
        return self.head(self.norm(self.embed(x)))


def built(seed):
    with random.seeded(random.key(seed)):
        return Net()


def test_a_model_takes_a_state_dict(tmp_path):
    module = built(3)
    torch.save(module.state_dict(), tmp_path / "m.pt")
    model = Model(Net)
    params, state = model.init(random.key(1))
    got, new_state, report = checkpoint.adopt(checkpoint.load_state_dict(tmp_path / "m.pt"), params, state)
    x = torch.tensor([0, 3, 1])
    assert torch.equal(model(got, new_state, x), module.eval()(x))
    assert report.tied == ("head.weight",)
    assert report.missing == ("positions",)
    assert not torch.equal(params["embed.weight"], got["embed.weight"])
    assert "tied" in str(report)
    extra = {"old.bias": torch.zeros_like(params["norm.bias"])}  # equal to another that is zero: no tie
    with pytest.raises(tree.TreeMismatchError, match=r"unexpected: 'old\.bias'"):
        checkpoint.adopt({**module.state_dict(), **extra}, params, state)


def test_prefixes_and_dtypes(tmp_path):
    module = built(3)
    saved = {f"net.{name}": tensor for name, tensor in module.half().state_dict().items() if name != "head.weight"}
    save_file(saved, tmp_path / "m.safetensors")
    params, state = Model(Net).init(random.key(1))
    tensors = checkpoint.load_state_dict(tmp_path / "m.safetensors")
    with pytest.raises(tree.TreeMismatchError, match=r"missing: 'embed\.weight' \(near 'net\.embed\.weight'\)"):
        checkpoint.adopt(tensors, params, state)
    got, _, report = checkpoint.adopt(tensors, params, state, names={"net.*": "*"})
    assert torch.equal(got["embed.weight"], saved["net.embed.weight"].float())
    assert "embed.weight" in report.cast
    assert "norm.num_batches_tracked" not in report.cast
    assert report.missing == ("positions",)
    got, _, report = checkpoint.adopt(tensors, params, state, strict=False)
    assert report.matched == ()
    assert len(report.unexpected) == len(saved)
    assert all(got[name] is params[name] for name in params)


def test_a_part_and_wrong_shapes():
    params, state = Model(Net).init(random.key(1))
    tensors = {"embed.weight": normal(1, 5, 3), "norm.weight": normal(2, 4), "other": normal(3, 2)}
    got, _, report = checkpoint.adopt(tensors, params, state, names="embed.*")
    assert report.matched == ("embed.weight",)
    assert torch.equal(got["embed.weight"], tensors["embed.weight"])
    with pytest.raises(tree.TreeMismatchError, match=r"'norm\.weight', float32 \(4,\) in the file, float32 \(3,\)"):
        checkpoint.adopt(tensors, params, state, names="norm.*")
    with pytest.raises(tree.UnknownNameError, match=r"near it: 'norm\.weight'"):
        checkpoint.adopt(tensors, params, state, names="norm.weights")
    integers = {"embed.weight": torch.arange(15).reshape(5, 3)}
    with pytest.raises(tree.TreeMismatchError, match=r"int64 \(5, 3\) in the file, float32"):
        checkpoint.adopt(integers, params, state, names="*")
    meta = {name: leaf.to("meta") for name, leaf in params.items()}
    assert checkpoint.adopt(tensors, meta, state, names="embed.*")[0]["embed.weight"].device.type == "cpu"


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_was_given_outlives_a_donating_step(device):
    model = Model(nn.Linear, 3, 2)
    pretrained = {"weight": normal(1, 2, 3), "bias": normal(2, 2)}
    given = tree.map(torch.clone, pretrained)
    params, state = model.init(random.key(1))
    params, state, _ = checkpoint.adopt(given, tree.map(lambda leaf: leaf.to(device), params), state)

    def loss(params, state, batch, key):
        return model(params, state, batch).square().mean(), (state, {})

    step = make_step(loss, optim.adam(0.1), donate=True)
    ts, _ = step(step.init(params, state, random.key(2)), normal(3, 4, 3))
    assert torch.equal(given["weight"], pretrained["weight"])
    assert not torch.equal(ts.params["weight"], pretrained["weight"])

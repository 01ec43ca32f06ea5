"""The demo, shortened: files, bits, figures; and whole, twice, where slow tests run."""

import io
import sys

import pytest
import torch
from rich.console import Console

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from safetensors import safe_open
from safetensors.torch import load_file

from funcnet import Model, bench, random
from funcnet.checkpoint.files import whole
from funcnet.checkpoint.tensorfile import chunks
from funcnet.demo import Settings, run
from funcnet.demo.data import digits
from funcnet.demo.models import CNN, MLP
from funcnet.demo.speed import COMPILED, EAGER, MODULE, Speed, steps_to_pay, table

SHORT = Settings(epochs=2, backend="aot_eager", rounds=2, block=1, progress=False)
NAMES = ["cnn.safetensors", "curves.png", "mlp.safetensors", "speed.png"]


def told(out, seed=0, settings=SHORT):
    """Run the demo: whether it reached its targets, and what it printed."""
    text = io.StringIO()
    reached = run(out, seed, settings, Console(file=text, width=80, highlight=False))
    return reached, text.getvalue()


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(5)
        before = torch.get_rng_state()
        threads = torch.get_num_threads()
        reached, text = told(out)
        assert torch.equal(before, torch.get_rng_state())
        assert torch.get_num_threads() == threads
    return out, reached, text


def test_the_story(short):
    out, reached, text = short
    assert not reached  # two epochs are not enough for the CNN or the MLP
    assert sorted(path.name for path in out.iterdir()) == NAMES
    assert "100,234 parameters, 44 steps" in text
    assert "missed its target" in text
    for way in (MODULE, EAGER, COMPILED):
        assert text.count(f" {way} ") == 2
    assert max(map(len, text.replace(str(out), "").splitlines())) <= 80 + len(", ".join(NAMES))
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in ("curves.png", "speed.png"))
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize("recipe", [MLP, CNN], ids=lambda recipe: recipe.name)
def test_weights_load_by_name_and_give_the_accuracy_of_their_metadata(recipe, short):
    path = short[0] / f"{recipe.name.lower()}.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["seed"] == "0"
    _, test = digits(random.split(random.key(0), 3)[0])
    logits = Model(recipe.build)(load_file(path), {}, test["image"])
    accuracy = (logits.argmax(-1) == test["label"]).double().mean().item()
    assert float(metadata["accuracy"]) == pytest.approx(accuracy, abs=1e-6)


def test_same_seed_same_bytes_other_seed_other_bytes(short, tmp_path):
    told(tmp_path / "again", settings=SHORT._replace(rounds=1))
    told(tmp_path / "other", seed=1, settings=SHORT._replace(backend=None, rounds=1, epochs=1))
    for name in ("mlp.safetensors", "cnn.safetensors"):
        first = (short[0] / name).read_bytes()
        assert (tmp_path / "again" / name).read_bytes() == first
        assert (tmp_path / "other" / name).read_bytes() != first


def test_files_are_whole_or_absent(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail():
        with whole(path) as temporary:
            temporary.write_text("ne")
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        fail()
    assert path.read_text() == "old"
    with whole(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_safetensors_are_the_same_bytes_each_time(tmp_path):
    tensors = {"b": torch.arange(3.0), "a": torch.eye(2).t()}
    metadata = {name: name for name in ["seed", "accuracy", "model", "x", "y", "z"]}
    raw = {b"".join(chunks(tensors, metadata)) for _ in range(20)}
    assert len(raw) == 1
    (tmp_path / "a").write_bytes(raw.pop())
    loaded = load_file(tmp_path / "a")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    with safe_open(tmp_path / "a", "pt") as file:
        assert file.metadata() == metadata


def test_digits_are_split_by_the_key():
    train, test = digits(random.key(3))
    again, _ = digits(random.key(3))
    other, _ = digits(random.key(4))
    assert (len(train["label"]), len(test["label"])) == (1438, 359)
    assert torch.equal(train["image"], again["image"])
    assert not torch.equal(train["image"], other["image"])
    assert (float(train["image"].min()), float(train["image"].max())) == (0.0, 1.0)


def test_when_compiling_has_paid():
    assert steps_to_pay(1.0, 0.003, 0.001) == 500
    assert steps_to_pay(1.0, 0.001, 0.002) is None
    seconds = {MODULE: 0.001, EAGER: 0.004, COMPILED: 0.002}
    timings = {way: bench.Timing(s, s, s, (s,), s) for way, s in seconds.items()}
    text = io.StringIO()
    Console(file=text, width=80).print(table([Speed("MLP", timings, 3.0)]))
    rows = {way: line for line in text.getvalue().splitlines() for way in seconds if way in line}
    assert "never" in rows[MODULE]
    assert "1,500 steps" in rows[EAGER]
    assert "3.0" in rows[COMPILED]


@pytest.mark.slow
def test_the_whole_demo_twice_to_the_bit(tmp_path):
    settings = Settings(progress=False)
    assert told(tmp_path / "first", settings=settings)[0]
    assert told(tmp_path / "second", settings=settings)[0]
    for name in ("mlp.safetensors", "cnn.safetensors"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()

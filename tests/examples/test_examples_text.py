"""The examples on text and tables, and those that compare runs, on small data."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from funcnet import Model, data, random

pytest.importorskip("matplotlib")

COMPARISONS = ("learning_rates", "depths", "early_stopping", "multi_task")
WORDS = ("to", "be", "or", "not", "that", "is", "the", "question", "whether", "nobler", "in", "mind", "suffer", "\n")


@pytest.fixture
def play(tmp_path):
    """A root with `tinyshakespeare`: a few words in an order drawn by key."""
    drawn = random.randint(random.key(0), (8000,), 0, len(WORDS)).tolist()
    path = tmp_path / "data" / "tinyshakespeare" / "input.txt"
    path.parent.mkdir(parents=True)
    path.write_text(" ".join(WORDS[i] for i in drawn))
    return tmp_path / "data"


@pytest.fixture
def mixtures(tmp_path):
    """A root with `tabular/concrete.csv`: of eight features, strength depends on the first two, and not as a line."""
    x = random.uniform(random.key(1), (300, 8)).numpy()
    names = [f"f{i}" for i in range(8)]
    strength = 40 + 30 * np.sin(3 * x[:, 0]) + 10 * x[:, 1] ** 2
    path = tmp_path / "data" / "tabular" / "concrete.csv"
    path.parent.mkdir(parents=True)
    rows = [",".join(f"{value:.5f}" for value in (*row, y)) for row, y in zip(x, strength, strict=True)]
    path.write_text("\n".join([",".join([*names, "strength"]), *rows]))
    return tmp_path / "data"


@pytest.mark.parametrize(
    "name",
    [*("shakespeare_gpt", "shakespeare_lstm", "concrete_regression"), *COMPARISONS],
)
def test_missing_data_is_one_line_that_says_what_to_pass(name, example, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        example(name).main(["--data", str(tmp_path), "--out", str(tmp_path / "deep" / "a.png")])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert str(tmp_path) in told
    assert ("--data names the folder" in told) or ("or the folder that has it as root" in told)
    assert told.count("\n") == 1
    assert not (tmp_path / "deep").exists()


def test_the_gpt_learns_and_writes(play, run):
    code, told = run("shakespeare_gpt", "--data", play, "--epochs", "2", "--eager")
    assert code == 0
    assert float(told.split(" nats")[0].split()[-1]) < 2.7  # log 20 is 3.0
    assert "at most 1.75 after" in told


def test_the_lstm_learns_and_writes(play, run):
    code, told = run("shakespeare_lstm", "--data", play, "--epochs", "4")
    assert code == 0
    assert float(told.split(" nats")[0].split()[-1]) < 2.5


def test_the_gpt_sees_only_what_came_before(example):
    module = example("shakespeare_gpt")
    model = Model(module.GPT, 11)
    params, state = model.init(random.key(0))
    tokens = random.randint(random.key(1), (1, module.CONTEXT), 0, 11)
    before, after = model(params, state, tokens), model(params, state, tokens.index_fill(1, torch.tensor(40), 3))
    assert torch.equal(before[:, :40], after[:, :40])
    assert not torch.allclose(before[:, 40:], after[:, 40:])


def test_the_gpt_writes_from_its_window_by_the_key(example):
    write = example("shakespeare_gpt").write
    seen = []

    def next_one(window):  # sure of what follows the last
        seen.append(window.shape)
        return 100.0 * F.one_hot((window + 1) % 7, 7).float()

    assert write(next_one, random.key(0), torch.arange(5), 4).tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1]
    assert set(seen) == {(1, 5)}
    undecided = partial(write, lambda window: torch.zeros(1, 5, 7), window=torch.arange(5), length=30)
    assert torch.equal(undecided(random.key(1)), undecided(random.key(1)))
    assert not torch.equal(undecided(random.key(1)), undecided(random.key(2)))


def test_the_lstm_writes_from_what_it_remembers(example):
    def net(tokens, memory=0):
        memory = memory + tokens.sum()
        return 100.0 * F.one_hot((torch.zeros_like(tokens) + memory) % 7, 7).float(), memory

    written = example("shakespeare_lstm").write(net, random.key(0), torch.tensor([[1, 2]]), 4)
    assert written.tolist() == [1, 2, 3, 6, 5, 3]


def test_concrete_is_explained(mixtures, run):
    code, told = run("concrete_regression", "--data", mixtures, "--eager")
    assert code == 0
    assert "what matters most is f0" in told


def test_concrete_that_cannot_be_explained_misses_its_floor(mixtures, run):
    path = mixtures / "tabular" / "concrete.csv"
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    table[:, -1] = random.uniform(random.key(2), (len(table),)).numpy()
    np.savetxt(path, table, delimiter=",", header=path.read_text().splitlines()[0], comments="")
    assert run("concrete_regression", "--data", mixtures, "--eager")[0] == 1
    assert run("concrete_regression", "--data", mixtures, "--epochs", "2")[0] == 0


def test_learning_rates_are_compared(digits, run):
    code, told = run("learning_rates", "--data", digits, "--steps", "60")
    assert code == 0
    *rates, sweep, best = told.splitlines()
    assert sweep.startswith("sweep: ")
    right = [float(line.split()[-1].rstrip("%")) for line in rates]
    assert len(right) == 16
    assert max(right) == 100.0
    assert right[0] < 60
    assert "with 100.00%, at least 95% after 1500 steps" in best


def test_depths_are_compared(clothes, run):
    code, told = run("depths", "--data", clothes, "--depths", "2", "4", "--epochs", "3")
    assert code == 0
    shallow, deep, worst = told.splitlines()
    assert shallow.startswith(" 2 layers: 100.00% right, gradients ")
    assert deep.startswith(" 4 layers: ")
    assert "at least 85% after" in worst


def test_a_depth_that_learns_nothing_misses_the_floor(clothes, run, idx):
    labels = clothes / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte"
    labels.write_bytes(idx((np.arange(100) + 1) % 10))  # the next class
    assert run("depths", "--data", clothes, "--depths", "2", "--epochs", "5", "--eager")[0] == 1


def test_early_stopping_restores_the_best(digits, run):
    code, told = run("early_stopping", "--data", digits, "--limit", "150", "--epochs", "40", "--eager")
    assert code == 0
    stopped, best, last = told.splitlines()
    assert "of 40 epochs" in stopped
    assert int(stopped.split()[2]) < 40
    nats = [float(line.split(" nats")[0].split()[-1]) for line in (best, last)]
    assert nats[0] < nats[1]


def test_two_tasks_beside_one(digits, run):
    code, told = run("multi_task", "--data", digits, "--epochs", "3")
    assert code == 0
    label, turn = told.splitlines()
    assert label.startswith("label: ")
    assert "at least 91%; " in label
    assert turn.startswith("turn: ")


def test_the_digits_are_turned_as_they_say(example, digits):
    rows = data.load("mnist", root=digits).train
    turned = example("multi_task").turned(random.key(3), rows)
    assert sorted(set(turned["turn"].tolist())) == [0, 1, 2, 3]
    for i in range(20):
        back = turned["x"][i].rot90(-int(turned["turn"][i]), (1, 2))
        assert torch.equal(back, rows["x"][i, :, 1:, 1:])

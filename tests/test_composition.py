"""The matrix of layers by transforms: a few cells always, all of them behind the marker."""

import re

import pytest
import torch
from matrix import cells, judge, layers
from matrix.kits import Funcnet, Slow
from torch import nn

from funcnet import random, tree

# Rows of every kind: statistics, dropout, ties, attributes, bags, recurrence, attention.
FAST = ["BatchNorm2d", "functional dropout", "EmbeddingBag", "tied embeddings", "plain tensor attributes", "GRU"]
FAST += ["causal attention"]
EAGER = [column for column in cells.CELLS if not column.startswith("jit") and column != "nested"]
CELLS = [(row, column) for row in FAST for column in EAGER]
CELLS += [("functional dropout", column) for column in cells.CELLS if column.startswith("jit")]


def verdict(row, column, raw=False, draws=judge.DRAWS):
    return judge.judge(layers.LAYERS[row], column, raw, "aot_eager", draws)


def test_every_class_of_torch_that_is_hard_to_make_pure_has_a_row():
    missing = layers.wanted() - set(layers.LAYERS) - set(layers.EXCUSED)
    assert not missing, f"torch.nn has {sorted(missing)}: give each a row in benchmarks/matrix/layers.py"


def test_no_class_is_excused_that_torch_has_not():
    assert set(layers.EXCUSED) <= layers.wanted()


@pytest.mark.parametrize("cls", [nn.Linear, nn.LazyConv2d, nn.RReLU, nn.Dropout1d, nn.TransformerDecoder, nn.NLLLoss])
def test_the_list_finds_parameters_training_and_what_contains_them(cls):
    assert cls.__name__ in layers.wanted()


@pytest.mark.filterwarnings("ignore:.nn.Container. is deprecated")
def test_what_the_list_leaves_out_holds_nothing():
    for name in sorted(set(dir(nn)) - layers.wanted()):
        cls = getattr(nn, name)
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            continue
        for arguments in ((), (2,), (2, 2), (2, 2, 2)):
            try:
                module = cls(*arguments)
            except TypeError:
                continue
            assert not [*module.parameters(), *module.buffers()], name
            break


@pytest.mark.parametrize(("row", "column"), CELLS)
def test_cell(row, column):
    found = verdict(row, column)
    assert found.kind == "right", found.detail


@pytest.mark.parametrize("row", ["Linear", "BatchNorm2d", "Dropout"])
def test_nestings(row):
    found = verdict(row, "nested", draws=3)
    assert found.kind == "right", found.detail


@pytest.mark.slow
@pytest.mark.parametrize("row", layers.LAYERS)
@pytest.mark.parametrize("column", cells.CELLS)
def test_whole(row, column):
    found = verdict(row, column)
    assert found.kind in ("right", "n/a"), found.detail


# A matrix whose cells cannot be wrong shows nothing.


def test_raw_torch_fails_where_it_must():
    kinds = {
        ("BatchNorm2d", "per-example grad"): "error",  # writes its statistics under vmap
        ("Linear", "remat"): "error",  # torch.func refuses checkpoint
        ("Dropout", "pure call"): "wrong",  # the global generator
        ("plain tensor attributes", "pure call"): "wrong",  # the attribute stays changed
        ("LayerNorm", "grad"): "right",
    }
    assert {cell: verdict(*cell, raw=True).kind for cell in kinds} == kinds


@pytest.mark.parametrize(
    ("column", "spoil", "said"),
    [
        ("grad", lambda result: tree.map(lambda x: x * 1.001, result), r"weight: relative error 1\.0e-03"),
        ("hvp", lambda result: tree.map(torch.zeros_like, result), "relative error 1"),
        ("jvp", lambda result: tree.map(lambda x: x.float(), result), "float32"),
        ("pure call", lambda result: {**result, "again": result["evaluation"]}, "twice"),
    ],
)
def test_a_wrong_result_is_found(monkeypatch, column, spoil, said):
    cell = cells.CELLS[column]

    def spoiled(kit, case):
        result = cell(kit, case)
        return spoil(result) if isinstance(kit, Funcnet) else result

    monkeypatch.setitem(judge.CELLS, column, spoiled)
    found = verdict("Dropout" if column == "pure call" else "Linear", column)
    assert found.kind != "right"
    assert re.search(said, found.detail), found.detail


def test_a_changed_argument_is_found(monkeypatch):
    def writing(kit, case):
        if isinstance(kit, Funcnet):
            case.params["weight"].mul_(1.0 + 1e-12)
        return cells.gradient(kit, case)

    monkeypatch.setitem(judge.CELLS, "grad", writing)
    found = verdict("Linear", "grad")
    assert (found.kind, found.detail) == ("wrong", "the call changed its arguments")


def test_a_moved_generator_is_found(monkeypatch):
    def drawing(kit, case):
        torch.rand(1)
        return cells.gradient(kit, case)

    monkeypatch.setitem(judge.CELLS, "grad", drawing)
    assert verdict("Linear", "grad").detail == "the global generator moved"


def test_a_reference_of_zeros_shows_nothing(monkeypatch):
    monkeypatch.setitem(judge.CELLS, "grad", lambda kit, case: tree.zeros_like(case.params))
    assert "no reference" in verdict("Linear", "grad").detail


# The slow kit is the reference of all: here is its own.


def test_slow_verbs_against_closed_forms():
    slow = Slow(nn.Identity(), keyed=True, deep=False)
    x, v = random.normal(random.key(1), (4,), torch.float64), random.normal(random.key(2), (4,), torch.float64)

    def f(x):
        return (x**3).sum()

    torch.testing.assert_close(slow.grad(f)(x), 3 * x**2)
    torch.testing.assert_close(slow.jvp(torch.sin, (x,), (v,))[1], torch.cos(x) * v)
    torch.testing.assert_close(slow.hvp(f, x, v), 6 * x * v)
    torch.testing.assert_close(slow.vmap(slow.grad(f))(torch.stack([x, v])), 3 * torch.stack([x, v]) ** 2)
    torch.testing.assert_close(slow.grad(lambda x: slow.jvp(f, (x,), (v,))[1])(x), 6 * x * v)
    torch.testing.assert_close(slow.jvp(slow.grad(f), (x,), (v,))[1], 6 * x * v)
    total, sums = slow.scan(lambda total, x: (total + x, total), torch.zeros((), dtype=x.dtype), x)
    torch.testing.assert_close(total, x.sum())
    torch.testing.assert_close(sums, x.cumsum(0) - x)

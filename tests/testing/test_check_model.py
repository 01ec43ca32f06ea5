"""`check_model`: all checks, one report; the pytest plugin and `funcnet check`, which run it."""

import functools
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from funcnet import Model, random
from funcnet.cli import main
from funcnet.testing import CHECKS, CheckError, check_model
from funcnet.testing import strategies as fs
from tests.models import Everything, built, mlp
from tests.testing import broken

pytest_plugins = ["pytester"]

X = random.normal(random.key(5), (4, 4))


def test_a_good_model_passes_everything():
    report = check_model(Everything, random.normal(random.key(1), (3, 3, 5, 5)))
    assert [result.check for result in report.results] == list(CHECKS)
    assert {result.status for result in report.results} == {"passed"}
    assert report.ok
    assert str(report).startswith("Model(Everything), key=random.key(0)\n  pure             passed ")


def test_every_counterexample_is_in_the_error():
    state = np.random.get_state()
    with pytest.raises(CheckError) as raised:
        check_model(functools.partial(broken.within, broken.NumpyDraw), X, only=["pure", "dtype", "vmap"])
    np.random.set_state(state)
    message, report = str(raised.value), raised.value.report
    assert "check_pure: Model(partial) in evaluation moves numpy.random in submodule 'inner.part'" in message
    assert "check_vmap: Model(partial) in evaluation" in message
    assert [r.check for r in report.failed] == ["pure", "vmap"]
    assert [(r.check, r.status) for r in report.results] == [
        ("pure", "failed"),
        ("dtype", "passed"),
        ("vmap", "failed"),
    ]


def test_what_does_not_apply_is_skipped_with_a_reason():
    class Largest(nn.Module):
        def forward(self, x):
            return x.argmax(-1)

    report = check_model(Largest, X, skip=["jit", "threads"])
    reasons = {r.check: r.detail for r in report.results if r.status == "skipped"}
    assert reasons == {
        "gradients": "Model(Largest) in evaluation has no floating output to differentiate.",
        "remat": "Model(Largest) in evaluation has no floating output to differentiate.",
    }


def test_built_modules_are_left_as_they_are():
    module = built(mlp)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    check_model(module, random.normal(random.key(1), (4, 6)), skip=["jit"])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((mlp, X[:, :2]), RuntimeError, "mat1 and mat2 shapes cannot be multiplied"),
        ((3, X), TypeError, "Model takes a class or function that returns a module"),
        ((lambda: 3, X), TypeError, "needs a constructor that returns an nn.Module"),
    ],
)
def test_what_is_no_model_or_no_input_is_an_error(arguments, error, message):
    with pytest.raises(error, match=message):
        check_model(*arguments)


@pytest.mark.parametrize("word", ["only", "skip"])
def test_an_unknown_check_is_named(word):
    with pytest.raises(ValueError, match=rf"{word}='vmpa' is no check; there are pure, seeded"):
        check_model(mlp, X, **{word: ["vmpa"]})


def test_the_callers_generators_and_example_stay():
    x = random.normal(random.key(1), (4, 6))
    copy, torch_state, numpy_state = x.clone(), torch.get_rng_state(), np.random.get_state()[1].copy()
    check_model(mlp, x, skip=["jit"])
    assert torch.equal(x, copy)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()


@settings(max_examples=4)
@given(fs.architectures(), fs.keys())
def test_no_false_alarms(architecture, key):
    check_model(architecture, architecture.example(key), key=key, skip=["jit"])


@pytest.mark.slow
@settings(max_examples=100)
@given(fs.architectures(), fs.keys())
def test_no_false_alarms_in_many(architecture, key):
    check_model(architecture, architecture.example(key), key=key)


# pytest plugin

TESTS = """
    import pytest, torch
    from torch import nn
    from funcnet import random

    class Doubtful(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.ModuleList([Sticky()])
        def forward(self, x):
            return self.inner[0](x)

    class Sticky(nn.Module):
        def forward(self, x):
            if not hasattr(self, "first"):
                self.first = x.mean()
            return x - self.first

    @pytest.mark.funcnet_models(
        {"good": (nn.Tanh, lambda key: random.normal(key, (2, 3))), "bad": (Doubtful, torch.arange(3.0))},
        only=["pure", "vmap", "parameter_count"],
    )
    def test_models(funcnet_check):
        funcnet_check()
"""


@pytest.fixture
def isolated(pytester, monkeypatch):
    """pytest as a user has it: without the settings and the plugins of this suite."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the plugin is named, whether it is installed or not

    def run(text, *options):
        pytester.makepyfile(text)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "funcnet_pytest", *options)

    return run


def test_the_plugin_makes_a_test_of_each_model_check_and_seed(isolated):
    result = isolated(TESTS, "--funcnet-seed", "7", "--funcnet-seeds", "2", "-v")
    result.assert_outcomes(passed=10, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*test_models[[]good-pure-seed7[]] PASSED*",
            "*test_models[[]good-vmap-seed8[]] PASSED*",
            "*check_pure: the module of Model(Doubtful) in evaluation keeps 'first' in submodule 'inner.0'*",
            "Run it again with: pytest '*::test_models[[]bad-pure-seed7[]]' --funcnet-seed 7",
        ]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def test_x(funcnet_check): pass", "*test_x uses funcnet_check without models: add @pytest.mark*"),
        (
            "import pytest\n@pytest.mark.funcnet_models([1])\ndef test_x(funcnet_check): pass",
            "*funcnet_models takes a dict from a name to (model, *example): write*",
        ),
    ],
)
def test_the_plugin_says_how_it_is_used(isolated, text, message):
    result = isolated(text)
    assert result.ret != 0
    (result.stderr if result.ret == pytest.ExitCode.USAGE_ERROR else result.stdout).fnmatch_lines([message])


def test_the_plugin_costs_nothing_where_it_is_not_used(isolated):
    result = isolated("import sys\ndef test_x(): assert 'torch' not in sys.modules")
    result.assert_outcomes(passed=1)


# funcnet check

MODULES = """
    import torch
    from torch import nn

    class Good(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.out = nn.Embedding(5, 4), nn.Linear(7, 2)

        def forward(self, tokens, x):
            return self.out(torch.cat([self.table(tokens), x], -1))

    class Sticky(nn.Module):
        last = None

        def forward(self, x):
            Sticky.last = x
            return x

    def bad():
        return nn.Sequential(nn.Linear(3, 3), Sticky())

    def number():
        return 3
"""


@pytest.fixture
def modules(pytester, monkeypatch):
    name = f"users_models_{id(pytester)}"
    pytester.makepyfile(**{name: MODULES})
    monkeypatch.syspath_prepend(pytester.path)
    yield name
    sys.modules.pop(name, None)


def test_check_on_the_command_line(modules, capsys):
    options = ["--input", "3:int64:5", "--input", "3,3", "--skip", "jit", "--seed", "4"]
    assert main(["check", f"{modules}:Good", *options]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == f"Model({modules}:Good), key=random.key(4)"
    assert [line.split()[:2] for line in lines[1:4]] == [["pure", "passed"], ["seeded", "passed"], ["dtype", "passed"]]
    assert "jit" not in out
    assert err == ""


def test_a_failure_on_the_command_line(modules, capsys):
    assert main(["check", f"{modules}:bad", "--input", "2,3", "--only", "pure"]) == 1
    assert "class attribute Sticky.last in submodule '1'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("{}:number", [], "gives a int, not an nn.Module"),
        ("no_such_module:f", [], "no_such_module cannot be imported: ModuleNotFoundError"),
        ("{}:bda", [], "has no attribute 'bda'; near names: bad"),
        ("{}:bad", ["--input", "2,x"], "'2,x' is no input"),
        ("{}:bad", ["--input", "2,4"], "fails with --input 2,4: RuntimeError: "),
        ("{}:bad", [], "fails with no --input: TypeError: "),
        ("{}:bad", ["--seed", str(2**70)], "seed of at most 64 bits"),
    ],
)
def test_nothing_to_check_is_status_2_and_one_line(modules, capsys, model, options, message):
    assert main(["check", model.format(modules), *options]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.startswith("funcnet: ")
    assert err.count("\n") == 1
    assert out == ""


def test_a_wrong_check_is_a_wrong_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["check", "torch.nn:ReLU", "--only", "purity"])
    assert stop.value.code == 2
    assert "invalid choice: 'purity'" in capsys.readouterr().err


def test_models_are_named_in_reports():
    assert str(check_model(Model(nn.ReLU), X, only=["pure"])).startswith("Model(ReLU)")
    assert str(check_model(nn.ReLU(), X, only=["pure"])).startswith("ReLU")

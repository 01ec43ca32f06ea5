"""`funcnet bench` as a user meets it: its own steps, choices, wrong input, statuses."""

import json

import pytest
import torch

from funcnet import bench
from funcnet.bench import shell, subjects
from funcnet.bench.subject import Running, Setting, Subject, Way
from funcnet.cli import main
from funcnet.control import scan

STEP = """
import torch
from funcnet import optim, random
from funcnet.train import TrainState, make_step

def make_step_of_mine():
    def loss(params, state, batch, key):
        return ((params["w"] @ batch) ** 2).mean(), (state, {})

    rule = optim.sgd(0.1)
    ts = TrainState.create({"w": random.normal(random.key(0), (4,))}, {}, rule, random.key(1))
    return make_step(loss, rule), ts, random.normal(random.key(2), (4, 8))

def plain():
    return torch.sin, random.normal(random.key(0), (4,))

def nothing():
    return torch.zeros(3)

def wrong():
    return torch.mm, torch.zeros(3)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "steps_of_mine.py").write_text(STEP)
    monkeypatch.setattr(shell, "limits", lambda *_: bench.Limits(1e9, 1e9))
    return tmp_path


@pytest.fixture
def eager(monkeypatch):
    """Compiling without the compiler."""
    from functools import partial

    from funcnet import jit
    from funcnet.bench import own

    monkeypatch.setattr(own, "jit", partial(jit, backend="aot_eager"))


def interrupted(*_):
    raise KeyboardInterrupt


def test_a_users_step_is_raced_with_its_state_carried_on(folder, eager, capsys, monkeypatch):
    files = ["--out", "out/a.json", "--markdown", "out/a.md"]
    assert main(["bench", "steps_of_mine:make_step_of_mine", "--rounds", "2", "--seconds", "0.001", *files]) == 0
    cells = json.loads((folder / "out" / "a.json").read_text())["results"][0]["cells"]
    assert list(cells) == ["eager", "compiled", "compiled, donating"]
    assert all(len(cell["timing"]["rounds"]) == 2 for cell in cells.values())
    assert "| eager |" in (folder / "out" / "a.md").read_text()
    assert "compiled, donating" in capsys.readouterr().out
    # What was measured before a run is cut short is kept.
    with monkeypatch.context() as patch:
        patch.setattr(shell, "_write", interrupted)
        cut = ["bench", "steps_of_mine:plain", "--rounds", "1", "--seconds", "0.001", "--out", "out/b.json"]
        assert main(cut) == 130
    capsys.readouterr()
    assert len(bench.Report.load(folder / "out" / "b.json").results) == 1
    again = ["--ways", "compiled*", "--warm", "--compare", "out/a.json"]
    assert main(["bench", "steps_of_mine:make_step_of_mine", "--rounds", "1", "--seconds", "0.001", *again]) == 0
    out = capsys.readouterr().out
    assert "against the older report" in out
    assert "eager " not in out


def test_a_function_that_carries_nothing_is_not_donated_to(folder, eager):
    assert list(subjects.subject("steps_of_mine:plain", Setting(torch.device("cpu"))).ways) == ["eager", "compiled"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mlpp"], "there is no workload 'mlpp'. Near names: mlp"),
        (["zebra"], "there is no workload 'zebra'. `funcnet bench --list`"),
        (["steps_of_mine:gone"], "steps_of_mine has no attribute 'gone'"),
        (["no_steps:f"], "no_steps cannot be imported: ModuleNotFoundError"),
        (["steps_of_mine:STEP"], "has no attribute 'STEP'"),
        (["steps_of_mine:nothing"], "returns a Tensor. It should return (step, *args)"),
        (["steps_of_mine:wrong"], "'steps_of_mine:wrong' fails on its arguments: TypeError: mm()"),
        (["mlp", "--ways", "nothing*"], "no way of mlp matches nothing*: module, "),
        (["mlp", "--device", "tpu9"], "'tpu9' is no device. Write cpu or cuda."),
        (["mlp", "--device", "meta"], "the bench runs on cpu and cuda, not on 'meta'"),
        (["mlp", "--compare", "gone.json"], "cannot read 'gone.json': No such file"),
    ],
)
def test_wrong_input_is_told_in_one_line(arguments, message, folder, capsys):
    assert main(["bench", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("rounds", ["0", "many"])
def test_rounds_are_counted(rounds, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "--rounds", rounds])
    assert stop.value.code == 2
    assert f"'{rounds}' is no whole number from 1 on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("way", "status", "message"),
    [
        (Way(lambda: Running(lambda: 2.0, lambda: 0)), 1, "fake, other: returns 2 at step 2, where plain returns 1"),
        (Way(lambda: 1 / 0), 1, "fake, other: ZeroDivisionError: division by zero"),
        (Way(lambda: 1 / 0, absent="needs a GPU"), 3, "fake, other: needs a GPU"),
        (Way(lambda: Running(lambda: 1.0, lambda: 0)), 0, ""),
    ],
)
def test_the_status_says_what_did_not_run(way, status, message, folder, monkeypatch, capsys):
    plain = Way(lambda: Running(lambda: 1.0, lambda: 0))
    fake = Subject("fake", {"plain": plain, "other": way}, ("plain",))
    monkeypatch.setattr(subjects, "SUBJECTS", {"fake": lambda *_: fake})
    assert main(["bench", "fake", "--smoke"]) == status
    out, err = capsys.readouterr()
    assert message in err
    assert ("ways of 1 workloads ran, and agree" in out) == (status != 1)


def test_a_missed_target_is_a_failure(folder, monkeypatch, capsys):
    import time

    slow, fast = (Way(lambda s=s: Running(lambda: time.sleep(s) or 1.0, lambda: 0)) for s in (0.01, 0.001))
    for model, status in ((slow, 1), (fast, 0)):
        fake = Subject("overhead", {"module": fast, "model": model}, ("module",))
        monkeypatch.setattr(subjects, "SUBJECTS", {"overhead": lambda *_, fake=fake: fake})
        assert main(["bench", "overhead", "--targets", "--rounds", "3", "--seconds", "0.01"]) == status
        assert "100 tiny layers" in capsys.readouterr().out


def test_everything_has_a_name(capsys):
    assert main(["bench", "--list"]) == 0
    names = capsys.readouterr().out.split()
    assert {"mlp", "mlp-inference", "overhead", "ensemble-64", "per-example", "blocks"} <= set(names)


def test_a_workload_that_cannot_be_built_does_not_end_the_run(folder, monkeypatch, capsys):
    built = []
    good = Subject("good", {"plain": Way(lambda: Running(lambda: 1.0, lambda: 0))}, ("plain",))

    def late(setting):
        built.append(list(folder.glob("*.json")))
        return good

    def bad(setting):
        raise MemoryError("all gone\\nand more")

    monkeypatch.setattr(subjects, "SUBJECTS", {"bad": bad, "good": late})
    arguments = ["bench", "bad", "good", "steps_of_mine:wrong", "--warm", "--rounds", "1", "--seconds", "0.001"]
    assert main([*arguments, "--out", "report.json", "--markdown", "report.md"]) == 1
    out, err = capsys.readouterr()
    assert "bad: MemoryError: all gone" in err
    assert "steps_of_mine:wrong: SpecError: 'steps_of_mine:wrong' fails on its arguments" in err
    assert "plain" in out
    assert built == [[folder / "report.json"]]  # when its turn has come, with what came before on disk
    names = [result.name for result in bench.Report.load(folder / "report.json").results]
    assert names == ["bad", "good", "steps_of_mine:wrong"]


def test_a_report_says_what_was_asked_for(folder, eager):
    arguments = ["steps_of_mine:plain", "--rounds", "2", "--seconds", "0.001", "--ways", "e*", "--autocast", "bf16"]
    assert main(["bench", *arguments, "--warm", "--out", "a.json"]) == 0
    report = bench.Report.load(folder / "a.json")
    run = report.environment["run"]
    assert run.pop("date").endswith("+00:00")
    assert run == {
        "what": ["steps_of_mine:plain"],
        "ways": ["e*"],
        "rounds": 2,
        "seconds": 0.001,
        "warm": True,
        "smoke": False,
        "device": "cpu",
        "autocast": "bf16",
    }
    assert report.results[0].settings["autocast"] == "not used"


def test_a_plot_without_matplotlib_is_refused_before_the_run(folder, monkeypatch, capsys):
    monkeypatch.setattr(shell, "find_spec", lambda name: None)
    assert main(["bench", "steps_of_mine:plain", "--plot", "a.png"]) == 2
    assert "--plot needs matplotlib: pip install 'funcnet[demo]'" in capsys.readouterr().err


def test_the_gpu_that_is_named_becomes_the_current_one(monkeypatch, capsys):
    chosen = []
    for name, value in (("is_available", lambda: True), ("device_count", lambda: 2), ("set_device", chosen.append)):
        monkeypatch.setattr(torch.cuda, name, value)
    assert shell._device("cuda:1") == torch.device("cuda:1")
    assert chosen == [torch.device("cuda:1")]
    assert main(["bench", "mlp", "--device", "cuda:2"]) == 2
    assert "there is no 'cuda:2': this machine has 2 CUDA devices, from cuda:0 on" in capsys.readouterr().err


def test_the_compiler_is_warmed_with_a_loop_on_the_device(monkeypatch):
    """Its errors are suppressed, since what cannot compile says so later: here they are not."""
    from contextlib import nullcontext
    from functools import partial

    from funcnet import jit

    placed = []
    monkeypatch.setattr(shell.contextlib, "suppress", lambda *_: nullcontext())
    monkeypatch.setattr(shell, "jit", partial(jit, backend="aot_eager"))
    monkeypatch.setattr(torch, "compile", lambda f: lambda x: placed.append(x.device) or f(x))
    loops = []
    monkeypatch.setattr(shell, "scan", lambda *args: loops.append(1) or scan(*args))
    shell._compile_once(torch.device("cpu"))
    assert placed == [torch.device("cpu")]
    assert loops

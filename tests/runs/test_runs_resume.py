"""A run that ended anywhere goes on to the bits of one that never stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from funcnet import checkpoint, tree
from funcnet.checkpoint import Checkpoints
from funcnet.cli import main
from funcnet.runs import plan

WORDS = ["--data", "synthetic:images?n=200&size=8&classes=3", "--model", "mlp:16,dropout=0.2", "--epochs", "4"]
WORDS += ["--batch-size", "20", "--augment", "flip", "--schedule", "cosine", "--ema", "0.9", "--log-every", "3"]
WORDS += ["--save-every", "5", "--early-stopping", "50"]


def state(folder):
    return checkpoint.load(checkpoint.latest(folder / "checkpoints"))


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that never stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["train", *WORDS, "--out", str(folder), "--quiet"]) == 0
    return folder


class Stopping:
    """A step that is interrupted as by Ctrl-C, or that fails, after so many calls."""

    def __init__(self, step, count, how):
        self.step, self.count, self.how = step, count, how

    def __call__(self, ts, batch):
        self.count -= 1
        if self.count == 0:
            self.how()
        return self.step(ts, batch)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def fail():
    raise KeyboardInterrupt


@pytest.mark.parametrize(("count", "how", "step"), [(13, interrupt, 13), (13, fail, 10), (25, interrupt, 25)])
def test_ctrl_c_saves_and_says_how_to_go_on(whole, tmp_path, capsys, monkeypatch, count, how, step):
    folder = tmp_path / "a"
    with monkeypatch.context() as patch:
        real = plan.Plan.run
        patch.setattr(plan.Plan, "run", lambda self, *args: Stopping(real(self, *args), count, how))
        assert main(["train", *WORDS, "--out", str(folder), "--quiet"]) == 130
    out, err = capsys.readouterr()
    saved = folder / "checkpoints" / f"step-{step:08d}"
    assert (out, err) == ("", f"funcnet: interrupted; saved as {saved}. Go on with: funcnet resume {folder}\n")
    assert not (folder / "result.json").exists()
    assert main(["resume", str(folder), "--json"]) == 0
    out, err = capsys.readouterr()
    assert f"goes on after step {step}" in err
    assert same(state(folder), state(whole))
    for name in ("log.csv", "log.jsonl"):
        assert (folder / name).read_text() == (whole / name).read_text()
    a, b = (json.loads((each / "result.json").read_text()) for each in (folder, whole))
    drop = ("seconds", "folder")
    assert {k: v for k, v in a.items() if k not in drop} == {k: v for k, v in b.items() if k not in drop}


def test_a_run_without_a_checkpoint_begins_again(whole, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "a"
    with monkeypatch.context() as patch:
        real = plan.Plan.run
        patch.setattr(plan.Plan, "run", lambda self, *args: Stopping(real(self, *args), 1, fail))
        assert main(["train", *WORDS, "--out", str(folder), "--quiet"]) == 130
    assert f"interrupted before anything was saved. Go on with: funcnet resume {folder}" in capsys.readouterr().err
    assert main(["train", *WORDS, "--out", str(folder), "--resume", "--quiet"]) == 0
    assert same(state(folder), state(whole))


def test_a_finished_run_goes_further(tmp_path, capsys):
    words = ["--data", "synthetic:regression?n=100", "--model", "mlp:8", "--quiet"]
    assert main(["train", *words, "--epochs", "4", "--out", str(tmp_path / "a")]) == 0
    assert main(["train", *words, "--epochs", "2", "--out", str(tmp_path / "b")]) == 0
    before = state(tmp_path / "b")
    assert main(["resume", str(tmp_path / "b"), "--quiet"]) == 0
    assert same(state(tmp_path / "b"), before)
    assert main(["resume", str(tmp_path / "b"), "--epochs", "4", "--quiet"]) == 0
    assert same(state(tmp_path / "a"), state(tmp_path / "b"))
    assert "epochs = 4" in (tmp_path / "b" / "config.toml").read_text()
    assert main(["resume", str(tmp_path / "b"), "--steps", "6", "--quiet"]) == 0


def test_resume_starts_where_there_is_no_run_and_refuses_another(whole, tmp_path, capsys):
    words = ["train", *WORDS, "--resume", "--quiet", "--out", str(tmp_path / "a")]
    assert main(words) == 0
    assert same(state(tmp_path / "a"), state(whole))
    capsys.readouterr()
    assert main([*words, "--lr", "0.5"]) == 2
    assert "has a run with lr = 0.001, and 0.5 is asked for" in capsys.readouterr().err
    assert main([*words, "--epochs", "5"]) == 0
    assert int(state(tmp_path / "a").step) == 40
    assert main(["train", *WORDS, "--resume"]) == 2
    assert "--resume needs the run's folder: write --out DIR" in capsys.readouterr().err


def test_the_second_process_in_a_folder_is_refused(whole, capsys):
    with Checkpoints(whole / "checkpoints"):
        assert main(["resume", str(whole), "--quiet"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "is in use by this process itself" in err
    assert err.count("\n") == 1


def test_a_run_that_is_not_finite_keeps_what_was_good(tmp_path, capsys, monkeypatch):
    words = ["--data", "synthetic:classification?n=200", "--model", "mlp:8", "--epochs", "3", "--batch-size", "20"]
    with monkeypatch.context() as patch:
        real = plan.Plan.run

        def spoilt(self, *args):
            step = real(self, *args)

            def run(ts, batch):
                if int(ts.step) == 11:
                    batch = {**batch, "x": batch["x"] * torch.nan}
                return step(ts, batch)

            return run

        patch.setattr(plan.Plan, "run", spoilt)
        assert main(["train", *words, "--out", str(tmp_path / "a"), "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("funcnet: the loss of step 12 is nan (epoch 1, batch 3, rows [")
    assert "The first leaf that is not finite is" in err
    assert "--clip 1" in err
    assert "--skip-nonfinite" in err
    assert err.count("\n") == 1
    assert int(state(tmp_path / "a").step) == 8
    assert main(["resume", str(tmp_path / "a"), "--quiet"]) == 0


def test_a_broken_checkpoint_is_passed_over(tmp_path, capsys):
    assert main(["train", *WORDS, "--out", str(tmp_path / "a"), "--quiet"]) == 0
    good = state(tmp_path / "a")
    newest = checkpoint.latest(tmp_path / "a" / "checkpoints") / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-8])
    assert main(["resume", str(tmp_path / "a")]) == 0
    assert "a checkpoint is passed over" in capsys.readouterr().err
    assert same(state(tmp_path / "a"), good)
    newest.write_bytes(b"")
    assert main(["evaluate", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().err.startswith("a checkpoint is passed over: ")
    for each in (tmp_path / "a" / "checkpoints").glob("step-*/manifest.json"):
        each.write_text("{")
    assert main(["resume", str(tmp_path / "a"), "--quiet"]) == 2
    assert "none of the checkpoints" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(whole, tmp_path):
    folder = tmp_path / "a"
    words = [sys.executable, "-c", "import sys; from funcnet.cli import main; sys.exit(main())"]
    kills = 0
    for words_ in (["train", *WORDS, "--out", str(folder)], *[["resume", str(folder)]] * 20):
        process = subprocess.Popen([*words, *words_], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seen = set()
        while process.poll() is None:
            now = set(folder.glob("checkpoints/*step-*")) if folder.exists() else set()
            if seen and now - seen and kills < 3:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            seen = seen | now
            time.sleep(0.001)
        if process.wait() == 0:
            break
    assert kills >= 1
    assert same(state(folder), state(whole))
    assert (folder / "log.jsonl").read_text() == (whole / "log.jsonl").read_text()

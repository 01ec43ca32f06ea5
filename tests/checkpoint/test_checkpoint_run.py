"""The checkpoints of a run: what stays, what is passed over, the writer, the lock."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from funcnet import checkpoint, random, tree
from funcnet.checkpoint import CheckpointError, Checkpoints, manager
from funcnet.checkpoint.lock import FolderLock


def at(step):
    """The state of a step: everything in it follows from the step."""
    return {"w": random.normal(random.key(step), (3, 2)), "step": step}


def names(paths):
    return [int(path.name.removeprefix("step-")) for path in paths]


def test_the_last_and_the_best_stay(tmp_path):
    losses = [0.9, 0.1, 0.5, 0.3, 0.6, float("nan"), 0.7]
    with Checkpoints(tmp_path, keep_last=2, keep_best=2) as checkpoints:
        for step, loss in enumerate(losses):
            assert checkpoints.save(at(step), step, metrics={"loss": loss}).name == f"step-{step:08d}"
        assert names(checkpoints.all()) == [1, 3, 5, 6]
        assert checkpoints.best().name == "step-00000001"
        assert checkpoints.latest().name == "step-00000006"
        assert checkpoint.best(tmp_path, "loss").name == "step-00000001"
        assert checkpoint.best(tmp_path, "loss", "max").name == "step-00000006"
        assert checkpoint.best(tmp_path, "accuracy") is None
        loaded, manifest = checkpoints.restore(at(0))
        assert torch.equal(loaded["w"], at(6)["w"])
        assert manifest.step == loaded["step"] == 6
    assert [path.name for path in tmp_path.glob(".*")] == []


KNOWN = (0.1, 0.2, 0.3)


@given(
    losses=st.lists(st.sampled_from([*KNOWN, float("nan"), None]), min_size=1, max_size=9),
    last=st.integers(1, 3),
    best=st.integers(0, 3),
    mode=st.sampled_from(["min", "max"]),
)
def test_pruning_never_removes_what_should_stay(tmp_path_factory, losses, last, best, mode):
    folder = tmp_path_factory.mktemp("run")
    with Checkpoints(folder, keep_last=last, keep_best=best, mode=mode, asynchronous=False) as checkpoints:
        stay = []
        for step, loss in enumerate(losses):
            checkpoints.save({}, step, metrics=None if loss is None else {"loss": loss})
            known = {*stay, step}
            scored = [
                (losses[s] if mode == "min" else -losses[s], -s) for s in {*stay, step} if losses[s] in (0.1, 0.2, 0.3)
            ]
            stay = sorted({*sorted(known)[-last:], *(-s for _, s in sorted(scored)[:best])})
            assert names(checkpoints.all()) == stay


def test_keeping_all(tmp_path):
    with Checkpoints(tmp_path, keep_last=None) as checkpoints:
        for step in range(6):
            checkpoints.save({}, step)
        assert names(checkpoints.all()) == list(range(6))


def test_there_is_nothing_yet(tmp_path):
    with Checkpoints(tmp_path / "new" / "run") as checkpoints:
        assert (checkpoints.latest(), checkpoints.best(), checkpoints.restore({}), checkpoints.all()) == (None,) * 3 + (
            [],
        )
    assert checkpoint.latest(tmp_path / "no such") is None
    assert checkpoint.best(tmp_path / "no such", "loss") is None


def damage(folder, how):
    match how:
        case "cut":
            path = folder / "tensors.safetensors"
            path.write_bytes(path.read_bytes()[:-1])
        case "absent tensors":
            (folder / "tensors.safetensors").unlink()
        case "absent manifest":
            (folder / "manifest.json").unlink()
        case "edited":
            path = folder / "manifest.json"
            path.write_text(path.read_text().replace('"step": 2', '"step": 3'))
        case "renamed":
            folder.rename(folder.with_name("step-00000009"))


@pytest.mark.parametrize("how", ["cut", "absent tensors", "absent manifest", "edited", "renamed"])
def test_broken_ones_are_passed_over_with_a_warning(tmp_path, how):
    with Checkpoints(tmp_path) as checkpoints:
        for step in range(3):
            checkpoints.save(at(step), step, metrics={"loss": -step})
        checkpoints.wait()
        damage(tmp_path / "step-00000002", how)
        for call in (checkpoints.latest, checkpoints.best, lambda: checkpoints.restore(at(0))[1].folder):
            with pytest.warns(UserWarning, match=r"passed over: .*step-0000000[29]"):
                assert call().name == "step-00000001"
        with pytest.warns(UserWarning, match="passed over"):
            assert checkpoint.latest(tmp_path).name == "step-00000001"
        checkpoints.save(at(3), 3)
        checkpoints.wait()
        with pytest.warns(UserWarning, match="passed over"):  # a broken one counts for nothing in what stays
            assert names(checkpoints.all()) == [0, 1, 3]


def test_restore_goes_back_to_one_whose_bytes_are_right(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in range(3):
            checkpoints.save(at(step), step)
        checkpoints.wait()
        for step in (2, 1, 0):
            path = tmp_path / f"step-{step:08d}" / "tensors.safetensors"
            raw = bytearray(path.read_bytes())
            raw[-1] ^= 1
            path.write_bytes(raw)
            if step:
                with pytest.warns(UserWarning, match="sha256 differs"):
                    assert checkpoints.restore(at(0))[1].step == step - 1
        with pytest.warns(UserWarning, match="sha256"), pytest.raises(CheckpointError, match="none of the checkpoints"):
            checkpoints.restore(at(0))


def test_restore_does_not_go_back_because_like_is_wrong(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(at(1), 1)
        with pytest.raises(tree.TreeMismatchError, match="unexpected: 'w'"):
            checkpoints.restore({"step": 0})


@pytest.fixture
def gate(monkeypatch):
    """Holds back writing until it is set, and lists the folders written."""
    opened, entered, seen = threading.Event(), threading.Event(), []

    def held(prepared, folder):
        entered.set()
        assert opened.wait(10)
        seen.append(folder.name)
        return checkpoint.saving.write(prepared, folder)

    monkeypatch.setattr(manager, "write", held)
    held.opened, held.entered, held.seen = opened, entered, seen
    yield held
    opened.set()


def test_what_is_saved_may_be_overwritten_at_once(tmp_path, gate):
    state = {"w": random.normal(random.key(1), (3, 2)), "t": random.normal(random.key(2), (2, 3)).T}
    before = tree.map(torch.clone, state)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, 1)
        assert gate.entered.wait(10)
        for leaf in state.values():
            leaf.fill_(7)
        gate.opened.set()
        loaded, _ = checkpoints.restore(state)
    assert all(torch.equal(loaded[name], before[name]) for name in before)


def test_one_write_at_a_time(tmp_path, gate):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save({}, 1)
        second = threading.Thread(target=checkpoints.save, args=({}, 2))
        second.start()
        second.join(0.1)
        assert second.is_alive()
        assert gate.seen == []
        gate.opened.set()
        second.join(10)
        assert not second.is_alive()
        checkpoints.wait()
        assert gate.seen == ["step-00000001", "step-00000002"]


CALLS = {
    "save": lambda c: c.save({}, 2),
    "wait": Checkpoints.wait,
    "latest": Checkpoints.latest,
    "best": Checkpoints.best,
    "all": Checkpoints.all,
    "restore": Checkpoints.restore,
    "close": Checkpoints.close,
}


@pytest.mark.parametrize("name", CALLS)
def test_an_error_of_the_writer_surfaces_once_at_the_next_call(tmp_path, monkeypatch, name):
    checkpoints = Checkpoints(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(manager, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "the disk is full")))
        checkpoints.save({}, 1)
        with pytest.raises(OSError, match="the disk is full"):
            CALLS[name](checkpoints)
    if name != "close":
        checkpoints.save({}, 3)
    checkpoints.close()
    Checkpoints(tmp_path).close()  # the lock is free


def test_an_error_that_no_one_asks_for_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(manager, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "the disk is full")))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({}, 1)
    with pytest.warns(RuntimeWarning, match="the last checkpoint was not written: .*disk is full"):
        del checkpoints
    Checkpoints(tmp_path).close()


def test_calls_after_close(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.close()
    checkpoints.close()
    with pytest.raises(ValueError, match="were closed"):
        checkpoints.save({}, 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"keep_last": 0}, "must be 1 or more"),
        ({"keep_best": -1}, "keep_best=-1 0 or more"),
        ({"mode": "least"}, "mode is 'min' or 'max'"),
    ],
)
def test_wrong_settings(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        Checkpoints(tmp_path, **given)


def test_a_metric_that_is_not_there(tmp_path):
    with Checkpoints(tmp_path, keep_best=1, best="accuracy") as checkpoints:
        with pytest.raises(ValueError, match=r"'accuracy', which is not in metrics.*best='acuracy'"):
            checkpoints.save({}, 1, metrics={"loss": 1, "acuracy": 2})
        with pytest.raises(TypeError, match="write int"):
            checkpoints.save({}, torch.tensor(1))
        checkpoints.save({}, 1)  # none at all is no mistake: a run that is interrupted has none


def test_two_in_one_folder(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(BlockingIOError, match="in use by this process itself"):
            Checkpoints(tmp_path)
        checkpoints.save(at(1), 1)
        assert checkpoints.latest() is not None
    Checkpoints(tmp_path).close()


def holder(**changes):
    return json.dumps({"pid": os.getppid(), "host": socket.gethostname(), "started": None} | changes)


def test_locks_of_others(tmp_path):
    lock = tmp_path / ".lock"
    lock.write_text(holder())
    with pytest.raises(BlockingIOError, match=rf"in use by process {os.getppid()} .*delete .*\.lock"):
        Checkpoints(tmp_path)
    lock.write_text(holder(host="elsewhere", pid=1))
    with pytest.raises(BlockingIOError, match="process 1 on elsewhere"):
        Checkpoints(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead = [holder(pid=process.pid), holder(pid=0), holder(pid=-1), "", "{", "[]", holder(pid="x")]
    if Path("/proc/self/stat").exists():
        dead += [holder(started="1"), holder(pid=os.getpid(), started="1")]  # the number belongs to another by now
    for text in dead:
        lock.write_text(text)
        Checkpoints(tmp_path).close()
        assert not lock.exists()


def test_many_that_race_for_a_dead_lock(tmp_path):
    for _ in range(20):
        (tmp_path / ".lock").write_text(holder(pid=2**22 + 1))
        won, start = [], threading.Barrier(4)

        def race(won=won, start=start):
            start.wait()
            with contextlib.suppress(BlockingIOError):
                won.append(FolderLock(tmp_path))

        threads = [threading.Thread(target=race) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        won[0].release()


def test_what_dead_writers_left_is_cleared(tmp_path):
    whole = checkpoint.save(tmp_path / "a", at(4), step=4)
    whole.rename(tmp_path / ".step-00000004.99-1-0.replaced")
    checkpoint.save(tmp_path / "step-00000005", at(5), step=5)
    for name in (".step-00000005.99-1-1.replaced", ".step-00000006.99-1-2.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tensors.safetensors").write_bytes(b"half")
    (tmp_path / ".mine.partial").mkdir()
    with Checkpoints(tmp_path) as checkpoints:
        assert names(checkpoints.all()) == [4, 5]
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            ".lock",
            ".mine.partial",
            "step-00000004",
            "step-00000005",
        ]


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(OSError, match=r"no checkpoints can be kept in .*run .*choose another folder"):
        Checkpoints(tmp_path / "run")


def test_exit_without_close_loses_nothing(tmp_path):
    script = """
        import sys, time
        import torch
        from funcnet import checkpoint
        from funcnet.checkpoint import manager, saving
        def slow(prepared, folder):
            time.sleep(0.5)
            return saving.write(prepared, folder)
        manager.write = slow
        checkpoints = checkpoint.Checkpoints(sys.argv[1])
        checkpoints.save({"w": torch.arange(3)}, 1)
    """
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], check=True, timeout=120)
    assert time.monotonic() - start > 0.5
    assert checkpoint.load(checkpoint.latest(tmp_path))["w"].tolist() == [0, 1, 2]
    assert not (tmp_path / ".lock").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_leaves_the_lock_alone(tmp_path):
    script = """
        import os, sys
        from funcnet import checkpoint
        checkpoints = checkpoint.Checkpoints(sys.argv[1])
        if not os.fork():
            try:
                checkpoints.save({}, 1)
            except RuntimeError as error:
                print(error)
            sys.exit()
        os.wait()
        print(os.path.exists(sys.argv[1] + "/.lock"))
    """
    run = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script), str(tmp_path)]
    out = subprocess.run(run, check=True, timeout=120, capture_output=True, text=True).stdout
    assert "make another after a fork" in out
    assert out.endswith("True\n")

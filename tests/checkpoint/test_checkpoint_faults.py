"""Full disks, kills, files that lie: what is there stays whole, and the error is always the same one."""

import contextlib
import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import torch

from funcnet import checkpoint, random
from funcnet.checkpoint import CheckpointError, Checkpoints, manifest, saving
from funcnet.tree import TreeMismatchError

FEW = pytest.param(500, id="500")
MANY = pytest.param(10_000, id="10000", marks=pytest.mark.slow)


def at(step):
    """The state of a step: everything in it follows from the step."""
    return {"w": random.normal(random.key(step), (30, 20)), "step": step, "deep": [{"b": random.key(step)}]}


def check_is_at(tree, step):
    want = at(step)
    assert tree["step"] == step
    assert torch.equal(tree["w"], want["w"])
    assert torch.equal(tree["deep"][0]["b"], want["deep"][0]["b"])


# -- a disk that is full


class Full:
    """The disk: files take `room` bytes in all, and calls of the system beyond `calls` fail."""

    def __init__(self, patch, room=None, calls=None):
        self.room, self.calls, self.used = room, calls, 0
        opened = Path.open
        patch.setattr(Path, "open", lambda path, *args, **named: self.wrapped(opened(path, *args, **named)))
        for name in ("fsync", "rename", "mkdir"):
            patch.setattr(os, name, self.counted(getattr(os, name)))

    def wrapped(self, stream):
        if "w" in stream.mode:
            write = stream.write
            limited = Stream(stream)
            limited.write = lambda data: self.take(len(data)) or write(data)
            return limited
        return stream

    def take(self, size):
        if self.room is not None:
            self.room -= size
            if self.room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def counted(self, call):
        def limited(*args, **named):
            self.used += 1
            if self.used - 1 == self.calls:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return call(*args, **named)

        return limited


class Stream:
    """A file whose `write` can be replaced."""

    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()


def size_of(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


def refused_whole(folder, old):
    """Saving fails with the folder's name, and what was there is there."""
    with pytest.raises(OSError, match=rf"the checkpoint {folder} could not be written .*Make room"):
        checkpoint.save(folder, at(2))
    assert list(folder.parent.iterdir()) == ([folder] if old else [])
    if old:
        check_is_at(checkpoint.load(folder), 1)


@pytest.mark.parametrize("old", [False, True])
def test_a_disk_that_fills_at_any_byte(tmp_path, monkeypatch, old):
    whole = size_of(checkpoint.save(tmp_path / "whole" / "a", at(2)))
    folder = tmp_path / "in" / "a"
    folder.parent.mkdir()
    if old:
        checkpoint.save(folder, at(1))
    draws = Random(1)
    for room in [0, 1, 7, 8, whole - 1, *(draws.randrange(whole) for _ in range(40))]:
        with monkeypatch.context() as patch:
            Full(patch, room=room)
            refused_whole(folder, old)
    with monkeypatch.context() as patch:
        Full(patch, room=whole)
        checkpoint.save(folder, at(2))
    check_is_at(checkpoint.load(folder), 2)


@pytest.mark.parametrize("old", [False, True])
def test_any_call_of_the_system_may_fail(tmp_path, monkeypatch, old):
    failures = []
    for calls in range(40):
        folder = tmp_path / str(calls) / "a"
        folder.parent.mkdir()
        if old:
            checkpoint.save(folder, at(1))
        with monkeypatch.context() as patch:
            full = Full(patch, calls=calls)
            try:
                checkpoint.save(folder, at(2))
            except OSError as error:
                failures.append(str(error))
        present = list(folder.parent.iterdir())
        assert present == [folder] or (present == [] and not old)
        if present:
            # The last call makes the rename sure: by then the new one is there.
            step = checkpoint.load(folder)["step"]
            check_is_at(checkpoint.load(folder), step)
        if full.used <= calls:
            break
    assert step == 2
    assert len(failures) >= 6
    assert all("could not be written" in failure for failure in failures)


def test_a_limit_of_the_system_on_file_sizes(tmp_path):
    resource = pytest.importorskip("resource")
    checkpoint.save(tmp_path / "a", at(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="could not be written") as error:
            checkpoint.save(tmp_path / "a", at(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.errno == errno.EFBIG
    check_is_at(checkpoint.load(tmp_path / "a"), 1)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_under_the_writer(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(at(1), 1)
    checkpoints.wait()
    with monkeypatch.context() as patch:
        Full(patch, room=1000)
        checkpoints.save(at(2), 2)
        with pytest.raises(OSError, match="step-00000002 could not be written"):
            checkpoints.wait()
    check_is_at(checkpoints.restore()[0], 1)
    checkpoints.save(at(2), 2)
    check_is_at(checkpoints.restore()[0], 2)
    checkpoints.close()


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(saving, "dumped", interrupted)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path / "a", at(1))
    assert list(tmp_path.iterdir()) == []


# -- kill -9


KILLED = """
import os, random, signal, sys, time
import torch
from funcnet import checkpoint
from funcnet.checkpoint import Checkpoints
torch.set_num_threads(1)  # a forked child has no threads of its parent
sys.path.insert(0, sys.argv[3])
from test_checkpoint_faults import at, check_is_at

folder, times, chance = sys.argv[1], int(sys.argv[2]), random.Random(7)

def run():
    with Checkpoints(folder, keep_last=2, keep_best=1) as checkpoints:
        found = checkpoints.restore(at(0))
        step = found[1].step if found else 0
        while True:  # every step twice, so that checkpoints are replaced as well
            for _ in range(2):
                checkpoints.save(at(step), step, metrics={"loss": step % 7})
                os.write(told, b".")
            step += 1

newest, partial = -1, 0
for _ in range(times):
    heard, told = os.pipe()
    child = os.fork()
    if not child:
        try:
            run()
        finally:
            os._exit(1)
    # After some saves, the last of which is being written, and a moment more: on a slow machine as on a fast one.
    for _ in range(chance.randrange(7)):
        os.read(heard, 1)
    time.sleep(chance.uniform(0, 0.01))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(heard)
    os.close(told)
    assert os.WIFSIGNALED(status), "the child ended by itself"
    partial += any(name.endswith((".partial", ".replaced")) for name in os.listdir(folder))
    with Checkpoints(folder, keep_last=2, keep_best=1) as checkpoints:
        path = checkpoints.latest()
        assert not any(name.endswith((".partial", ".replaced")) for name in os.listdir(folder))
        if path is not None:
            step = checkpoint.read_manifest(path).step
            assert path.name == f"step-{step:08d}" and step >= newest, (path, step, newest)
            check_is_at(checkpoint.load(path, at(0)), step)
            newest = step
        for path in checkpoints.all():
            check_is_at(checkpoint.load(path), checkpoint.read_manifest(path).step)
print(newest, partial)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("times", [50, pytest.param(500, marks=pytest.mark.slow)])
def test_kill_at_any_moment(tmp_path, times):
    command = [sys.executable, "-W", "error", "-c", KILLED, str(tmp_path), str(times), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    newest, partial = map(int, done.stdout.split())
    assert newest > times / 4  # it got on from life to life
    assert partial > times / 10  # and was hit while it wrote


# -- files that lie


def forged(folder, change, *, whole=True):
    """A checkpoint whose manifest was changed by one who knows how to write its checksum, or not."""
    path = folder / "manifest.json"
    body = json.loads(path.read_text())
    body.pop("checksum")
    change(body)
    if whole:
        body["checksum"] = manifest._checksum(body)
    path.write_text(json.dumps(body))


def set_tensor(**fields):
    return lambda body: body["tensors"]["w"].update(fields)


def set_tree(node):
    return lambda body: body["tree"]["items"].__setitem__(2, ["deep", node])


LIES = {
    "a newer format": (lambda b: b.update(format=2), r"has format 2, written by funcnet .*install a newer one"),
    "no format": (lambda b: b.pop("format"), "names no format"),
    "a lacking field": (lambda b: b.pop("metrics"), "lacks a field"),
    "an old format": (lambda b: b.update(format=0), "lacks a field"),
    "another sha": (lambda b: b["file"].update(sha256="0" * 64), "its sha256 differs"),
    "another size": (lambda b: b["file"].update(bytes=3), "bytes and should have 3"),
    "another shape": (set_tensor(shape=[20, 30]), r"'w' is F32 of shape \(30, 20\), and its manifest says"),
    "a huge shape": (set_tensor(shape=[2**62, 2**62]), "impossible shape"),
    "a huge shape of nothing": (set_tensor(shape=[0, 2**62, 2**62]), "impossible shape"),
    "a negative shape": (set_tensor(shape=[-1]), "no valid dtype and shape"),
    "another dtype": (set_tensor(dtype="int32"), "says torch.int32"),
    "no dtype": (set_tensor(dtype="__import__"), "a dtype which torch"),
    "a quantized dtype": (set_tensor(dtype="qint8"), "a dtype which torch"),
    "strides that overlap": (set_tensor(strides=[0, 1]), "impossible strides"),
    "strides that reach far": (set_tensor(strides=[2**40, 1]), "impossible strides"),
    "a metric that is text": (lambda b: b.update(metrics={"loss": "low"}), "a metric that is no number"),
    "a tensor that is not in the tree": (lambda b: b["tensors"].update(x=b["tensors"]["w"]), "are not the tensors"),
    "a place without tensor": (set_tree("*"), "are not the tensors"),
    "no node": (set_tree(3), "no valid node at 'deep'"),
    "a node of no kind": (set_tree({"kind": "set", "items": []}), "unknown kind 'set'"),
    "a value that is none": (set_tree({"value": []}), "no number or string"),
    "items that are no pairs": (set_tree({"kind": "dict", "items": [[1]]}), "no pair"),
    "a name twice": (set_tree({"kind": "dict", "items": [["a", None], ["a", None]]}), "a name twice"),
    "a class of elsewhere": (
        lambda b: (b["tensors"].pop("deep.0.b"), set_tree({"kind": "named", "type": "os:system", "items": []})(b)),
        "has other names than its manifest",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_lies(tmp_path, lie):
    change, message = LIES[lie]
    forged(checkpoint.save(tmp_path / "a", at(1)), change)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(tmp_path / "a")
    checkpoint.save(tmp_path / "a", at(1))
    forged(tmp_path / "a", change, whole=False)
    with pytest.raises(CheckpointError, match=r"its checksum differs|has format 2|names no format"):
        checkpoint.load(tmp_path / "a", at(0))


@pytest.mark.parametrize(
    "name", ["os:system", "subprocess:Popen", "antigravity:geohash", "funcnet.nowhere:X", "funcnet:checkpoint.save",
             "funcnet.cli:main", "builtins:tuple", "funcnet.train.step:tree", "funcnet.train.step:TrainState.create",
             "", ":"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["named", "object"])
def test_nothing_is_imported_or_run_because_a_file_says_so(tmp_path, name, kind):
    folder = checkpoint.save(tmp_path / "a", {"deep": 1})
    forged(folder, lambda b: b["tree"]["items"].__setitem__(0, ["deep", {"kind": kind, "type": name, "items": []}]))
    modules = set(sys.modules)
    with pytest.raises(CheckpointError, match=r"nothing is imported because a file says so|which .* lacks"):
        checkpoint.load(folder)
    assert set(sys.modules) == modules


def nested(depth):
    node = None
    for _ in range(depth):
        node = {"kind": "list", "items": [node]}
    return node


@pytest.mark.parametrize("depth", [*range(300, 1001, 50), 3000])
def test_a_tree_of_no_end(tmp_path, depth):
    folder = checkpoint.save(tmp_path / "a", {"deep": 1})
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(50_000)
    try:
        forged(folder, lambda b: b["tree"]["items"].__setitem__(0, ["deep", nested(depth)]))
    finally:
        sys.setrecursionlimit(limit)
    assert tried(lambda: checkpoint.load(folder)) or depth < 1000


def test_a_leaf_that_says_it_is_more(tmp_path):
    folder = checkpoint.save(tmp_path / "a", {"deep": 1})
    forged(folder, lambda b: b["tree"]["items"].__setitem__(0, ["deep", {"value": 1, "kind": "named"}]))
    assert checkpoint.load(folder) == {"deep": 1}


@pytest.mark.parametrize(
    ("name", "items"),
    [
        ("funcnet.tree.form:Form", [["treedef", None], ["rest", None]]),
        ("funcnet.optim.tree.params:_Whole", [["value", None]]),
    ],
)
def test_only_trees_are_rebuilt(tmp_path, name, items):
    folder = checkpoint.save(tmp_path / "a", {"deep": 1})
    node = {"kind": "object", "type": name, "items": items}
    forged(folder, lambda b: b["tree"]["items"].__setitem__(0, ["deep", node]))
    with pytest.raises(CheckpointError, match=r"has the fields .*, which .* lacks"):
        checkpoint.load(folder)


def test_fields_that_a_class_lacks(tmp_path):
    folder = checkpoint.save(tmp_path / "a", {"deep": 1})
    node = {"kind": "named", "type": "funcnet.train.state:TrainState", "items": [["params", None]]}
    forged(folder, lambda b: b["tree"]["items"].__setitem__(0, ["deep", node]))
    with pytest.raises(CheckpointError, match=r"has the fields \['params'\], which .*TrainState lacks"):
        checkpoint.load(folder)


@pytest.mark.parametrize("cut", [0, 1, 8, 100, -1])
def test_a_file_that_was_cut(tmp_path, cut):
    folder = checkpoint.save(tmp_path / "a", at(1))
    for name in ("tensors.safetensors", "manifest.json"):
        path = folder / name
        raw = path.read_bytes()
        path.write_bytes(raw[:cut])
        with pytest.raises(CheckpointError, match=f"{name}.*cut short"):
            checkpoint.load(folder)
        path.write_bytes(raw)
    (folder / "tensors.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(folder)


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        checkpoint.load(tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"is no checkpoint: it has no manifest\.json\.$"):
        checkpoint.load(tmp_path)
    checkpoint.save(tmp_path / "a", at(1))
    with pytest.raises(CheckpointError, match=r"it holds others: load\(folder / 'a'\)"):
        checkpoint.load(tmp_path)


def mutated(value, draws):
    """A JSON value with one thing in it changed."""
    junk = [None, True, -1, 0, 2**31, 2**63, 10**30, 1.5, float("inf"), "", "w", "*", "../../etc/passwd",
            "float64", [], {}, [[]], {"kind": "dict"}, {"value": 1, "kind": "named"}, {"$float": "nan"},
            "os:system", "\ud800"]  # fmt: skip
    if not isinstance(value, dict | list) or not value or draws.random() < 0.15:
        return draws.choice(junk)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draws.choice(keys)
    copy = value.copy()
    what = draws.random()
    if what < 0.1:
        del copy[key]
    elif what < 0.2 and isinstance(copy, dict):
        copy[draws.choice(["x", "kind", "w", "__metadata__", ""])] = copy.pop(key)
    elif what < 0.25 and isinstance(copy, list):
        copy.append(copy[key])
    else:
        copy[key] = mutated(copy[key], draws)
    return copy


def noise(raw, draws):
    """Bytes with some of them changed, taken out, or put in."""
    raw = bytearray(raw)
    for _ in range(draws.choice([1, 1, 2, 8])):
        place = draws.randrange(len(raw) + 1)
        match draws.randrange(4):
            case 0:
                del raw[place:]
            case 1:
                raw[place:place] = draws.choice([b"[" * 5000, b"{", b'"', b"\\u0000", b"1e999", b"NaN", b"\xff", b"-"])
            case 2:
                del raw[place : place + draws.randrange(1, 9)]
            case _:
                raw[place : place + 1] = bytes([draws.randrange(256)])
    return bytes(raw)


def tried(call):
    """Whether a call fails, which it may in one way alone."""
    try:
        call()
    except CheckpointError as error:
        assert str(error)  # noqa: PT017  # any other error fails the test
        return True
    return False


@pytest.mark.parametrize("cases", [FEW, MANY])
def test_fuzzed_manifests(tmp_path, cases):
    folder = checkpoint.save(tmp_path / "a", at(1), step=3, metrics={"loss": 1.0}, position=[1, {"x": 2}])
    path = folder / "manifest.json"
    good = path.read_bytes()
    body = json.loads(good)
    body.pop("checksum")
    draws, modules, failed = Random(cases), set(sys.modules), 0
    for case in range(cases):
        if case % 3 == 0:
            path.write_bytes(noise(good, draws))
        else:
            changed = mutated(body, draws)
            if isinstance(changed, dict):
                changed = {**changed, "checksum": manifest._checksum(changed)}
            path.write_text(json.dumps(changed))
        failed += tried(lambda: checkpoint.load(folder))
        with contextlib.suppress(CheckpointError, TreeMismatchError):
            checkpoint.load(folder, at(0))
    assert failed > cases / 2
    assert set(sys.modules) == modules
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("cases", [FEW, MANY])
def test_fuzzed_safetensors_headers(tmp_path, cases):
    folder = checkpoint.save(tmp_path / "a", {**at(1), "empty": torch.zeros(0, 3), "one": torch.ones(())})
    path, said = folder / "tensors.safetensors", folder / "manifest.json"
    good, body = path.read_bytes(), json.loads(said.read_text())
    body.pop("checksum")
    end = 8 + int.from_bytes(good[:8], "little")
    header = json.loads(good[8:end])
    draws, failed = Random(cases), 0
    for case in range(cases):
        if case % 3 == 0:
            raw = noise(good[:end], draws) + good[end:]
        else:
            text = json.dumps(mutated(header, draws)).encode()
            length = draws.choice([len(text)] * 9 + [0, 2**63, len(text) - 1, len(text) + 1])
            raw = length.to_bytes(8, "little") + text + good[end:]
        path.write_bytes(raw)
        # With size and sha right, so that the header itself is looked at; and as a file that others wrote.
        body["file"] = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
        said.write_text(json.dumps({**body, "checksum": manifest._checksum(body)}))
        failed += tried(lambda: checkpoint.load(folder))
        with contextlib.suppress(CheckpointError):
            checkpoint.load_state_dict(path)
    assert failed > cases / 2


def test_bit_rot_is_always_found(tmp_path):
    folder = checkpoint.save(tmp_path / "a", at(1), step=1)
    draws = Random(3)
    for name in ("tensors.safetensors", "manifest.json"):
        path = folder / name
        good = path.read_bytes()
        for _ in range(100):
            raw = bytearray(good)
            raw[draws.randrange(len(raw))] ^= 1 << draws.randrange(8)
            path.write_bytes(raw)
            try:
                tree = checkpoint.load(folder)
            except CheckpointError:
                continue
            check_is_at(tree, 1)  # a blank between two words of the manifest
        path.write_bytes(good)

"""The examples as modules, and small data in the formats of the real ones."""

import importlib.util
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from funcnet import jit

EXAMPLES = Path(__file__).parents[2] / "examples"


def pytest_generate_tests(metafunc):
    """A test that takes `example_path` runs for each example."""
    if "example_path" in metafunc.fixturenames:
        metafunc.parametrize("example_path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)


@pytest.fixture
def example():
    """An example as a module of its own, whose `jit` takes a backend that compiles quickly unless another is named."""

    def load(name, backend="aot_eager"):
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if hasattr(module, "jit"):
            module.jit = partial(jit, backend=backend)
        return module

    return load


@pytest.fixture
def run(example, tmp_path, capsys):
    """Run an example's main with a picture to draw: its exit code and what it printed, the picture being whole.

    Names that are given stand in the place of the example's own.
    """

    def run(name, *arguments, **others):
        out, module = tmp_path / "deep" / "picture.png", example(name)
        vars(module).update(others)
        code = module.main([*map(str, arguments), "--out", str(out)])
        assert out.read_bytes().startswith(b"\x89PNG\r\n")
        assert [path.name for path in out.parent.iterdir()] == [out.name]
        return code, capsys.readouterr().out

    return run


@pytest.fixture
def idx():
    """The bytes of an IDX file of uint8."""

    def idx(array):
        array = np.asarray(array)
        return struct.pack(f">{1 + array.ndim}I", 2048 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()

    return idx


def _set_of_rows(root, folder, idx, train, test):
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", train), ("t10k", test)):
        labels = np.arange(count) % 10
        images = np.zeros((count, 28, 28))
        images[np.arange(count), 2 * labels + 3] = 255
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return root


@pytest.fixture
def digits(tmp_path, idx):
    """A root with a tiny MNIST, 600 and 100: class d is a bright row d."""
    return _set_of_rows(tmp_path / "data", "MNIST", idx, 600, 100)


@pytest.fixture
def clothes(tmp_path, idx):
    """A root with a tiny Fashion-MNIST, 600 and 100, of the same pictures as `digits` and beside them."""
    return _set_of_rows(tmp_path / "data", "FashionMNIST", idx, 600, 100)


@pytest.fixture
def photos(tmp_path):
    """A root with `trashnet`: of each of five classes six pictures in train and two in val, 48 high and 36 wide."""
    root = tmp_path / "data"
    for part, count in (("train", 6), ("val", 2)):
        for label, name in enumerate(("cardboard", "glass", "metal", "paper", "plastic")):
            folder = root / "trashnet" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.full((48, 36, 3), 40 + 8 * i, np.uint8)
                pixels[8 * label : 8 * label + 12, :, label % 3] = 250
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root

"""Every workload computes the same in torch and in jax, from the same weights."""

import importlib.util
import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from funcnet import counts, random, tree
from funcnet.bench.ways.job import Job
from funcnet.bench.workloads import WORKLOADS, Workload, in_jax
from funcnet.model import Model
from funcnet.transforms import grad, value_and_grad

# At full size these compile and compute for long; what a smaller size can show is shown at the smaller size.
SLOW = {"resnet18", "resnet50", "vit-tiny", "gpt"}
FULL = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in WORKLOADS]


def numpy(values: Any) -> Any:
    return tree.map(lambda value: value.numpy(), values)


def far(mine: Any, theirs: Any) -> float:
    """The distance as a share of the norm."""
    mine, theirs = np.asarray(mine, np.float64), np.asarray(theirs, np.float64)
    return float(np.linalg.norm(mine - theirs) / np.linalg.norm(theirs))


def differ(mine: Any, theirs: Any, tolerance: float) -> dict[str, float]:
    """The distances that are not within the tolerance."""
    assert mine.keys() == theirs.keys()
    distances = {name: far(mine[name], theirs[name]) for name in theirs}
    return {name: distance for name, distance in distances.items() if not distance <= tolerance}


def started(workload: Workload, dtype: torch.dtype = torch.float32) -> tuple[Model, Any, Any, Any, Tensor]:
    """The model, its weights and state, inputs and target, as every way of the bench starts."""
    job = Job(workload, torch.device("cpu"))
    inputs, target = job.batch
    return job.model, *tree.cast((*job.start(), inputs), dtype), target


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_parameter_has_a_gradient_at_the_start(name: str) -> None:
    """A head of zeros would hide everything below it, and ways would agree whatever they compute there."""
    workload = WORKLOADS[name]("smoke")
    model, params, state, inputs, target = started(workload)
    assert model(params, state, *inputs).abs().max() > 1e-3
    grads = grad(lambda p: workload.loss(model.apply(p, state, *inputs, train=True)[0], target))(params)
    # A bias of keys moves all scores of a query alike, and one before a normalization nothing: rounding alone is left.
    assert all(value.any() for value in grads.values())


def check_training(workload: Workload, dtype: torch.dtype, tolerance: float) -> None:
    """Loss, gradients and new state in jax are torch's: loss and state within a tenth of the tolerance."""
    jax = pytest.importorskip("jax")
    model, params, state, inputs, target = started(workload, dtype)

    def torch_loss(params: Any) -> tuple[Tensor, Any]:
        output, after = model.apply(params, state, *inputs, train=True)
        return workload.loss(output, target), after

    (value, after), grads = value_and_grad(torch_loss, has_aux=True)(params)

    with jax.enable_x64(dtype == torch.float64):
        net, loss = in_jax.load(workload)
        theirs, their_state, their_inputs = net.prepare(numpy(params), numpy(state), numpy(inputs))

        def jax_loss(params: Any) -> tuple[Any, Any]:
            output, after = net.apply(params, their_state, *their_inputs, train=True)
            return loss(output, target.numpy()), after

        (their_value, their_after), their_grads = jax.jit(jax.value_and_grad(jax_loss, has_aux=True))(theirs)
        wanted, wanted_state, _ = net.prepare(numpy(grads), numpy(after), numpy(inputs))

    assert far(their_value, value) <= tolerance / 10
    assert differ(their_grads, wanted, tolerance) == {}
    assert differ(their_after, wanted_state, tolerance / 10) == {}
    assert {key: value.shape for key, value in their_after.items()} == {
        key: value.shape for key, value in state.items()
    }


@pytest.mark.parametrize("name", WORKLOADS)
def test_torch_and_jax_agree_to_the_last_digits_at_the_smallest_size(name: str) -> None:
    check_training(WORKLOADS[name]("smoke"), torch.float64, 1e-9)


@pytest.mark.parametrize("name", FULL)
def test_torch_and_jax_agree_at_the_size_that_is_timed(name: str) -> None:
    # Many BatchNorms over few numbers: in float32 torch's own gradients of a ResNet-50 are 2 % away from float64's.
    wide = name.startswith("resnet")
    check_training(WORKLOADS[name]("cpu"), torch.float64 if wide else torch.float32, 1e-8 if wide else 1e-4)


@pytest.mark.parametrize("name", WORKLOADS)
def test_torch_and_jax_agree_in_evaluation(name: str) -> None:
    jax = pytest.importorskip("jax")
    workload = WORKLOADS[name]("smoke")
    model, params, state, inputs, _ = started(workload)
    net, _ = in_jax.load(workload)
    theirs, their_state, their_inputs = net.prepare(numpy(params), numpy(state), numpy(inputs))
    output, after = jax.jit(net.apply, static_argnames="train")(theirs, their_state, *their_inputs, train=False)
    assert far(output, model(params, state, *inputs)) < 1e-5
    assert after.keys() == their_state.keys()
    assert all(np.array_equal(after[key], their_state[key]) for key in their_state)


@pytest.mark.parametrize("name", ["cnn", "vit-tiny", "gpt", "lstm", "dlrm"])
def test_jax_computes_in_the_parameters_dtype_and_the_loss_in_float32(name: str) -> None:
    jax = pytest.importorskip("jax")
    workload = WORKLOADS[name]("smoke")
    _, params, state, inputs, target = started(workload)
    net, loss = in_jax.load(workload)
    theirs, their_state, their_inputs = net.prepare(numpy(params), numpy(state), numpy(inputs))

    def half(value: Any) -> Any:
        return value.astype(jax.numpy.bfloat16) if value.dtype == np.float32 else value

    def dtypes(arrays: Any) -> Any:
        return {key: array.dtype for key, array in arrays.items()}

    apply = jax.jit(net.apply, static_argnames="train")
    output, after = apply(jax.tree.map(half, theirs), their_state, *map(half, their_inputs), train=True)
    wide, _ = apply(theirs, their_state, *their_inputs, train=True)
    assert output.dtype == jax.numpy.bfloat16
    assert dtypes(after) == dtypes(their_state)
    assert loss(output, target.numpy()).dtype == np.float32
    assert far(output.astype(np.float32), wide) < 0.05


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (1, 0)])
def test_a_convolution_as_a_product_is_a_convolution(stride: int, padding: int) -> None:
    pytest.importorskip("jax")
    from funcnet.bench.workloads.in_jax.layers import as_product

    one, other = random.split(random.key(5))
    x, kernel = random.normal(one, (2, 3, 7, 7)), random.normal(other, (4, 3, 3, 3))
    wanted = torch.conv2d(x, kernel, stride=stride, padding=padding)
    moved = x.permute(0, 2, 3, 1).numpy(), kernel.permute(2, 3, 1, 0).numpy()
    assert far(as_product(*moved, stride, padding), wanted.permute(0, 2, 3, 1)) < 1e-6


@pytest.mark.parametrize("name", WORKLOADS)
def test_batches_depend_on_their_key_alone(name: str) -> None:
    workload = WORKLOADS[name]("cpu")
    (inputs, target), again = workload.batch(random.key(3)), workload.batch(random.key(3))
    other, _ = workload.batch(random.key(4))
    assert tree.map(torch.equal, (inputs, target), again) == tree.map(lambda _: True, (inputs, target))
    assert not any(torch.equal(mine, theirs) for mine, theirs in zip(inputs, other, strict=True))
    assert all(value.device.type == "cpu" and value.is_contiguous() for value in (*inputs, target))
    assert (target.numel() if workload.unit == "token" else len(target)) == workload.size


def perceptron(*widths: int) -> int:
    return sum(counts.linear(*pair) for pair in pairwise(widths))


def transformer(layers: int, width: int) -> int:
    """Blocks of two LayerNorms, four attention matrices and a perceptron, and a last LayerNorm."""
    block = 2 * counts.layer_norm(width) + counts.multihead_attention(width, 1) + perceptron(width, 4 * width, width)
    return layers * block + counts.layer_norm(width)


def gpt(layers: int, width: int, context: int, vocabulary: int) -> int:
    return counts.embedding(vocabulary, width) + counts.embedding(context, width) + transformer(layers, width)


FORMULAS = {
    "mlp": perceptron(784, 512, 256, 10),
    "cnn": counts.conv2d(3, 32, 3, bias=False)
    + counts.conv2d(32, 64, 3, bias=False)
    + counts.batch_norm(32)
    + counts.batch_norm(64)
    + counts.linear(8 * 8 * 64, 10),
    # With a thousand classes they have 11,689,512 and 25,557,032, as torchvision's documentation says.
    "resnet18": 11_689_512 - counts.linear(512, 1000) + counts.linear(512, 10),
    "resnet50": 25_557_032 - counts.linear(2048, 1000) + counts.linear(2048, 10),
    "vit-tiny": counts.conv2d(3, 192, 8) + 192 + (1 + 8 * 8) * 192 + transformer(12, 192) + counts.linear(192, 10),
    "gpt-small": gpt(4, 128, 128, 512),
    "gpt": gpt(12, 768, 1024, 50304),
    "lstm": counts.embedding(512, 128) + counts.lstm(128, 128, 2) + counts.linear(128, 512),
    "dlrm": 8 * counts.embedding(10_000, 16) + perceptron(13, 64, 16) + perceptron(16 + 9 * 8 // 2, 64, 32, 1),
}


@pytest.mark.parametrize("name", WORKLOADS)
def test_parameters_are_as_many_as_their_formulas_say(name: str) -> None:
    with torch.device("meta"):
        module = WORKLOADS[name]("cpu").module()
    assert sum(value.numel() for value in module.parameters()) == FORMULAS[name]


def test_gpt_has_124_million_parameters() -> None:
    assert FORMULAS["gpt"] == 124_475_904


@pytest.mark.parametrize("name", WORKLOADS)
def test_sizes_grow_with_the_machine(name: str) -> None:
    assert WORKLOADS[name]("gpu").size >= WORKLOADS[name]("cpu").size > WORKLOADS[name]("smoke").size


def test_a_machine_without_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match="mlp has sizes for cpu, gpu, smoke, and none for 'tpu'"):
        WORKLOADS["mlp"]("tpu")


def test_the_workloads_do_not_import_jax() -> None:
    if importlib.util.find_spec("jax") is None:
        pytest.skip("nothing to import")
    code = "import sys, funcnet.bench.workloads.in_jax; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_workload_without_jax_says_so() -> None:
    workload = Workload(
        "mine", torch.nn.Identity, lambda key: ((key,), key), lambda output, _: output.sum(), 1, "example"
    )
    with pytest.raises(ValueError, match="mine has no form in jax"):
        in_jax.load(workload)


def test_layers_are_written_for_the_platform_that_they_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine whose jax prefers its GPU the CPU's form runs on the CPU, and the other way about."""
    jax = pytest.importorskip("jax")
    from funcnet.bench.ways.in_jax import Jitted
    from funcnet.bench.workloads.in_jax import layers

    seen = []

    def function(x: Any) -> Any:
        seen.append(layers.platform())
        return x + 1

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    x = jax.device_put(np.float32(2.0), jax.devices("cpu")[0])
    run = Jitted(function, torch.device("cpu"))
    assert [float(run(x)), float(run(x))] == [3.0, 3.0]
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert float(Jitted(function, torch.device("cuda"))(x)) == 3.0
    assert seen == ["cpu", "gpu"]


@pytest.mark.parametrize(("platform", "products"), [("cpu", True), ("gpu", False)])
def test_small_images_are_convolved_by_a_product_on_a_cpu_alone(platform: str, products: bool) -> None:
    jax = pytest.importorskip("jax")
    from funcnet.bench.workloads.in_jax import layers

    one, other = random.split(random.key(5))
    x, kernel = random.normal(one, (2, 8, 8, 3)).numpy(), random.normal(other, (3, 3, 3, 4)).numpy()
    with layers.written_for(platform):
        traced = str(jax.make_jaxpr(lambda x, kernel: layers.conv({"c.weight": kernel}, "c", x, padding=1))(x, kernel))
    assert ("conv_general_dilated" in traced) != products

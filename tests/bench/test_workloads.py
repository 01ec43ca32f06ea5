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
from funcnet.bench.workloads import WORKLOADS, Workload, in_jax
from funcnet.model import Model
from funcnet.transforms import value_and_grad

SLOW = {"resnet50", "gpt"}
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in WORKLOADS]


def numpy(values: Any) -> Any:
    return tree.map(lambda value: value.numpy(), values)


def far(mine: Any, theirs: Any) -> float:
    """The distance as a share of the norm."""
    mine, theirs = np.asarray(mine, np.float64), np.asarray(theirs, np.float64)
    return float(np.linalg.norm(mine - theirs) / np.linalg.norm(theirs))


def started(workload: Workload) -> tuple[Model, Any, Any]:
    """Weights a little off their initial values: a head of zeros would hide all gradients below it."""
    model = Model(workload.module)
    one, other = random.split(random.key(0))
    params, state = model.init(one)
    keys = random.split(other, len(params))
    moved = {
        name: value + 0.02 * random.normal(key, tuple(value.shape))
        for key, (name, value) in zip(keys, params.items(), strict=True)
    }
    return model, moved, state


@pytest.mark.parametrize("name", NAMES)
def test_torch_and_jax_agree_on_loss_gradients_and_state(name: str) -> None:
    jax = pytest.importorskip("jax")
    workload = WORKLOADS[name]("cpu")
    model, params, state = started(workload)
    inputs, target = workload.batch(random.key(1))

    def torch_loss(params: Any) -> tuple[Tensor, Any]:
        output, after = model.apply(params, state, *inputs, train=True)
        return workload.loss(output, target), after

    (value, after), grads = value_and_grad(torch_loss, has_aux=True)(params)

    net, loss = in_jax.load(workload)
    theirs, their_state, their_inputs = net.prepare(numpy(params), numpy(state), numpy(inputs))

    def jax_loss(params: Any) -> tuple[Any, Any]:
        output, after = net.apply(params, their_state, *their_inputs, train=True)
        return loss(output, target.numpy()), after

    (their_value, their_after), their_grads = jax.jit(jax.value_and_grad(jax_loss, has_aux=True))(theirs)

    assert far(their_value, value) < 1e-5
    wanted, wanted_state, _ = net.prepare(numpy(grads), numpy(after), numpy(inputs))
    assert their_grads.keys() == wanted.keys()
    assert {
        key: far(their_grads[key], wanted[key]) for key in wanted if far(their_grads[key], wanted[key]) > 1e-4
    } == {}
    assert their_after.keys() == wanted_state.keys()
    assert {key for key in wanted_state if far(their_after[key], wanted_state[key]) > 1e-5} == set()


@pytest.mark.parametrize("name", NAMES)
def test_torch_and_jax_agree_in_evaluation(name: str) -> None:
    jax = pytest.importorskip("jax")
    workload = WORKLOADS[name]("cpu")
    model, params, state = started(workload)
    inputs, _ = workload.batch(random.key(2))
    net, _ = in_jax.load(workload)
    theirs, their_state, their_inputs = net.prepare(numpy(params), numpy(state), numpy(inputs))
    output, after = jax.jit(lambda params, state, *inputs: net.apply(params, state, *inputs, train=False))(
        theirs, their_state, *their_inputs
    )
    assert far(output, model(params, state, *inputs)) < 1e-5
    assert all(np.array_equal(after[key], their_state[key]) for key in their_state)


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
def test_a_workload_for_a_gpu_is_no_smaller(name: str) -> None:
    assert WORKLOADS[name]("gpu").size >= WORKLOADS[name]("cpu").size


def test_a_machine_without_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match="mlp has sizes for cpu and gpu, not for 'tpu'"):
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

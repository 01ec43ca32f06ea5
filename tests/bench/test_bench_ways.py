"""The rivals: as strong as their users have them, on the device that is asked for, with nothing hidden from them."""

import os
from typing import Any

import pytest
import torch

from funcnet import random
from funcnet.bench import subjects, ways
from funcnet.bench.race import race
from funcnet.bench.subject import Setting, unseen
from funcnet.bench.ways import in_jax, module
from funcnet.bench.ways.job import Job
from funcnet.bench.workloads import WORKLOADS

CPU = torch.device("cpu")


def job(name: str = "mlp", autocast: torch.dtype | None = None) -> Job:
    return Job(WORKLOADS[name]("smoke"), CPU, autocast)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_torch_compiles_the_loss_with_its_module(autocast, monkeypatch):
    graphs, modes, compile = [], [], torch.compile

    def recorded(function: Any, mode: str | None = None) -> Any:
        def backend(graph: Any, inputs: Any) -> Any:
            graphs.append({str(node.target) for node in graph.graph.nodes})
            return graph

        modes.append(mode)
        return compile(function, backend=backend)

    monkeypatch.setattr(torch, "compile", recorded)
    torch.compiler.reset()
    running = module._trained(job(autocast=autocast), compile_module=True, fused=True)
    plain = module._trained(job(autocast=autocast), fused=True)
    for _ in range(3):
        torch.testing.assert_close(running.step(), plain.step(), rtol=1e-5, atol=0.0)
    assert len(graphs) == 1  # with the casts inside, in one piece
    assert any("cross_entropy" in target for target in graphs[0])
    module._trained(job(), compile_module=True, compiled=True, mode="max-autotune")
    assert modes == [None, "max-autotune", "max-autotune"]


def test_two_ways_of_torch_compile_do_not_share_a_graph(monkeypatch):
    """Else the second would seem to start in no time."""
    compiled, compile = [], torch.compile

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", lambda function, mode=None: compile(function, backend=backend))
    torch.compiler.reset()
    for _ in range(2):
        module._trained(job(), compile_module=True, fused=True).step()
        module._run(job(), "default").step()
    assert len(compiled) == 4


def test_the_memory_of_cuda_graphs_is_not_measured():
    assert unseen("reduce-overhead")() is None
    assert unseen("max-autotune")() is None
    assert unseen(None) is unseen("default") is None


def test_jax_is_given_its_batch_and_tells_what_it_takes(monkeypatch):
    jax = pytest.importorskip("jax")
    pytest.importorskip("optax")
    given = []

    class Recorded(in_jax.Jitted):
        def __call__(self, *args: Any) -> Any:
            given.append([leaf.shape for leaf in jax.tree.leaves(args)])
            return super().__call__(*args)

    monkeypatch.setattr(in_jax, "Jitted", Recorded)
    one = job()
    running = in_jax._trained(one)
    assert running.taken() is None  # nothing is compiled yet
    losses = [float(running.finish()) for _ in range(3)]
    (inputs,), target = one.batch
    assert given[0][-2:] == [tuple(inputs.shape), tuple(target.shape)]
    assert losses[0] > losses[1] > losses[2]
    assert running.held() > 3 * sum(value.nbytes for value in one.start()[0].values())

    product = in_jax.Jitted(lambda x: (x @ x) @ x, CPU)
    x = jax.numpy.asarray(random.normal(random.key(0), (64, 64)).numpy())
    product(x)
    product.wait()
    assert 2 * x.nbytes <= product.taken() < 8 * x.nbytes  # the result, and one product between


def test_jax_without_a_gpu_is_absent_on_a_gpu(monkeypatch):
    jax = pytest.importorskip("jax")
    pytest.importorskip("optax")

    def devices(kind: str) -> Any:
        raise RuntimeError(f"Unknown backend {kind}")

    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    monkeypatch.setattr(jax, "devices", devices)
    assert in_jax.absent(torch.device("cuda")) == "jax sees no GPU: pip install 'jax[cuda13]'"
    assert in_jax.absent(CPU) is None
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    monkeypatch.setattr(in_jax, "find_spec", lambda name: None)
    assert in_jax.absent(CPU).startswith("jax is not installed")


def test_a_workload_that_is_not_written_in_jax_has_no_such_way():
    made = subjects.subject("thousand-parameters", Setting(CPU, smoke=True))
    assert "jax" not in made.ways
    assert not any(way.absent for way in made.ways.values())


@pytest.mark.parametrize("name", ["cnn-inference", "vit-tiny-inference"])
def test_ways_in_bfloat16_agree_within_its_rounding(name):
    pytest.importorskip("jax")
    made = subjects.subject(name, Setting(CPU, torch.bfloat16, smoke=True))
    assert made.settings["autocast"] == "bfloat16"
    chosen = {way: made.ways[way] for way in ("module", "jax")}
    strict = type(made)(**{**vars(made), "ways": chosen, "rtol": ways._APART[None]})
    assert race(strict, rounds=0, cold=False).cells["jax"].failure.startswith("returns ")
    loose = type(made)(**{**vars(made), "ways": chosen})
    assert race(loose, rounds=0, cold=False).cells["jax"].failure is None


def test_a_subject_that_does_not_cast_says_so():
    assert subjects.subject("overhead", Setting(CPU, torch.bfloat16)).settings["autocast"] == "not used"
    assert "autocast" not in subjects.subject("overhead", Setting(CPU)).settings

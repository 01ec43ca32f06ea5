"""What a plan is made of before anything runs."""

import pytest
import torch

from funcnet import random
from funcnet.runs import Config, optimizers, plan


def test_a_run_draws_everything_from_keys_of_its_own(monkeypatch):
    drawn = []
    real = optimizers.choose
    monkeypatch.setattr(optimizers, "choose", lambda *args: drawn.append(args[-1]) or real(*args))
    made = plan.make(Config(data="synthetic:regression?n=100", model="linear", optim="noisy_sgd"))
    keys = [*drawn, made.key, made.start.key]
    assert len({tuple(key.tolist()) for key in keys}) == 3


@pytest.mark.parametrize("precision", ["bf16", "fp16", "autocast-bf16"])
def test_rows_are_normalized_before_they_are_rounded(tmp_path, precision):
    years = random.randint(random.key(3), (200,), 1990, 2024).tolist()
    path = tmp_path / "houses.csv"
    path.write_text("year,price\n" + "\n".join(f"{year},{100_000 + 1000 * (year % 7)}" for year in years))
    losses = {}
    for name in ("fp32", precision):
        made = plan.make(Config(data=f"csv:{path}#price", model="linear", precision=name))
        losses[name] = made.step(made.start, made.rows.train)[1]["loss"]
    torch.testing.assert_close(losses[precision], losses["fp32"], rtol=2e-3, atol=0)


def test_parameters_are_kept_in_the_dtype_of_the_policy():
    made = plan.make(Config(data="synthetic:regression?n=100", model="linear", precision="fp64"))
    assert {leaf.dtype for leaf in made.start.params.values()} == {torch.float64}
    _, metrics = made.run()(made.start, {name: leaf[:8] for name, leaf in made.rows.train.items()})
    assert metrics["loss"].dtype == torch.float64

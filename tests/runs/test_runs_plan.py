"""What a plan is made of before anything runs."""

from funcnet.runs import Config, optimizers, plan


def test_a_run_draws_everything_from_keys_of_its_own(monkeypatch):
    drawn = []
    real = optimizers.choose
    monkeypatch.setattr(optimizers, "choose", lambda *args: drawn.append(args[-1]) or real(*args))
    made = plan.make(Config(data="synthetic:regression?n=100", model="linear", optim="noisy_sgd"))
    keys = [*drawn, made.key, made.start.key]
    assert len({tuple(key.tolist()) for key in keys}) == 3

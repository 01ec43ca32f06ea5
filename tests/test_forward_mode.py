"""Forward mode in several threads, of which torch keeps one for the process."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from funcnet import grad, hessian, hvp, jacfwd, jit, jvp, random, remat, tree

X, V = (random.normal(random.key(n), (5,), torch.float64) for n in (1, 2))


def f(x: torch.Tensor) -> torch.Tensor:
    return (x.sin() * x.flip(0)).sum()


CALLS: dict[str, Callable[[], Any]] = {
    "jvp": lambda: jvp(f, (X,), (V,)),
    "jacfwd": lambda: jacfwd(torch.sin)(X),
    "hvp": lambda: hvp(f, (X,), (V,)),
    "remat": lambda: jvp(remat(f), (X,), (V,)),
    "traced": lambda: jit(lambda x: jvp(f, (x,), (V,)), backend="eager")(X),
    "reverse mode": lambda: grad(f)(X),
}


def in_threads(*work: Callable[[], None]) -> list[BaseException]:
    failed: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


@pytest.mark.parametrize("name", CALLS)
def test_threads_do_not_meet(name: str):
    want, rounds = CALLS[name](), 10 if name == "traced" else 100

    def again() -> None:
        for _ in range(rounds):
            tree.map(lambda a, b: torch.testing.assert_close(a, b), CALLS[name](), want)

    def other() -> None:
        for _ in range(100):
            hessian(f)(X)

    assert in_threads(*[again] * 6, other, other) == []


def test_a_jitted_function_is_not_inside_the_forward_mode_of_another_thread():
    double = jit(lambda x: 2 * x, backend="eager")
    double(X)  # to trace it is to wait for the other
    inside, done = threading.Event(), threading.Event()

    def waiting(x: torch.Tensor) -> torch.Tensor:
        inside.set()
        assert done.wait(30)
        return x.sin()

    def beside() -> None:
        assert inside.wait(30)
        try:
            assert torch.equal(double(X), 2 * X)
            assert torch.equal(grad(lambda x: (x**2).sum())(X), 2 * X)
        finally:
            done.set()

    assert in_threads(lambda: jvp(waiting, (X,), (V,)), beside) == []


def test_a_level_of_torchs_own_is_seen():
    double = jit(lambda x: 2 * x, backend="eager")
    with torch.autograd.forward_ad.dual_level(), pytest.raises(TypeError, match="was called inside grad, vmap or"):
        double(X)

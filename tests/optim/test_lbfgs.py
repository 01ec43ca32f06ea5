"""L-BFGS and the line searches: against optax on functions, under transforms, and what goes wrong."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import vmap

from funcnet import jit, optim, random, tree
from funcnet.transforms import grad as slope_of
from funcnet.transforms import value_and_grad

sys.path.insert(0, str(Path(__file__).parent))
from running import close, example

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script.:FutureWarning")


def rosenbrock(p):
    return (1 - p["x"]) ** 2 + 100 * (p["y"] - p["x"] ** 2) ** 2


def ill(p):
    """A quadratic of condition 1e4 with a quartic, of any library's tensors."""
    return sum(10.0**i * (p["w"][i] - i) ** 2 for i in range(5)) + (p["v"] ** 4).sum()


def start(name="rosenbrock"):
    if name == "rosenbrock":
        return {"x": torch.tensor(-1.2, dtype=torch.float64), "y": torch.tensor(1.0, dtype=torch.float64)}
    drawn = random.normal(random.key(3), (7,), torch.float64)
    return {"v": drawn[:2], "w": drawn[2:]}


PROBLEMS = {"rosenbrock": rosenbrock, "ill": ill}


def minimize(library, optimizer, f, params, steps, wrap=lambda step: step):
    """The parameters after each step, and the last state."""
    both = library.value_and_grad_from_state(f)

    def step(params, state):
        value, grad = both(params, state=state)
        updates, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=f)
        return library.apply_updates(params, updates), state

    step, state, seen = wrap(step), optimizer.init(params), []
    for _ in range(steps):
        params, state = step(params, state)
        seen.append(params)
    return seen, state


def searches(library):
    """Optimizers with each line search, and unusual arguments."""
    back, zoom = library.scale_by_backtracking_linesearch, library.scale_by_zoom_linesearch
    return {
        "lbfgs": library.lbfgs(),
        "lbfgs, one step remembered": library.lbfgs(memory_size=1),
        "lbfgs, not scaled": library.lbfgs(memory_size=4, scale_init_precond=False),
        "lbfgs, backtracking": library.lbfgs(linesearch=back(20, store_grad=True)),
        "lbfgs, strict zoom": library.lbfgs(linesearch=zoom(20, curv_rtol=0.1, initial_guess_strategy="one")),
        "sgd, zoom": library.chain(library.sgd(1.0), zoom(15)),
        "sgd, short zoom": library.chain(library.sgd(1.0), zoom(3, max_learning_rate=1e-3, increase_factor=1.5)),
        "sgd, zoom by Armijo": library.chain(
            library.sgd(1.0), zoom(20, approx_dec_rtol=None, tol=1e-3, slope_rtol=0.1, stepsize_precision=1e-2)
        ),
        "sgd, backtracking": library.chain(library.sgd(1.0), back(30, store_grad=True)),
        "sgd, backtracking with arguments": library.chain(
            library.sgd(1.0), back(9, 0.2, 0.5, 3.0, 0.1, atol=1e-3, rtol=1e-3, store_grad=True)
        ),
    }


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", searches(optim))
def test_the_iterates_are_optaxs(name, problem):
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    f, steps = PROBLEMS[problem], 12  # rounding grows from step to step
    got, state = minimize(optim, searches(optim)[name], f, start(problem), steps)
    with jax.enable_x64(True):
        params = {k: jax.numpy.asarray(v.numpy()) for k, v in start(problem).items()}
        want, theirs = minimize(optax, searches(optax)[name], f, params, steps, jax.jit)
        # Near the minimum values differ by rounding, and a search decides by their signs.
        far = [float(f(p)) > 1e-12 for p in want]
        for mine, other, compared in zip(got, want, far, strict=True):
            for key in mine:
                if compared:
                    np.testing.assert_allclose(mine[key].numpy(), np.asarray(other[key]), rtol=1e-6, atol=1e-9)
        assert sum(far) >= 6
        if all(far):
            info, wanted = state[-1].info._asdict(), theirs[-1].info._asdict()
            for key in info:
                np.testing.assert_allclose(info[key].numpy(), np.asarray(wanted[key]), rtol=1e-6, atol=1e-9)


def test_lbfgs_finds_the_bottom_of_rosenbrocks_valley():
    seen, _ = minimize(optim, optim.lbfgs(), rosenbrock, start(), 60)
    close(seen[-1], tree.ones_like(start()), rtol=0, atol=1e-8)
    assert next(n for n, p in enumerate(seen) if rosenbrock(p) < 1e-8) < 40


def test_lbfgs_solves_a_quadratic_as_newtons_method_does():
    matrix = torch.diag(torch.tensor([1.0, 3.0, 10.0], dtype=torch.float64))
    target = random.normal(random.key(1), (3,), torch.float64)

    def f(x):
        return 0.5 * (x - target) @ matrix @ (x - target)

    exact = optim.scale_by_zoom_linesearch(30, curv_rtol=1e-10, stepsize_precision=0.0)
    seen, _ = minimize(optim, optim.lbfgs(linesearch=exact), f, torch.zeros(3, dtype=torch.float64), 6)
    torch.testing.assert_close(seen[-1], target, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["lbfgs", "sgd, backtracking"])
def test_steps_compile_once_and_equal_eager_ones(name):
    compiled = []

    def wrap(step):
        compiled.append(jit(step, backend="aot_eager"))
        return compiled[0]

    optimizer = searches(optim)[name]
    got = minimize(optim, optimizer, rosenbrock, start(), 5, wrap)
    close(got, minimize(optim, optimizer, rosenbrock, start(), 5), rtol=1e-7, atol=1e-10)
    assert compiled[0].compiles == 1


@pytest.mark.parametrize("name", ["lbfgs", "sgd, zoom", "sgd, backtracking"])
def test_vmap_over_starts_equals_a_loop(name):
    optimizer = searches(optim)[name]

    def run(x, y):
        return minimize(optim, optimizer, rosenbrock, {"x": x, "y": y}, 6)[0][-1]

    xs, ys = torch.tensor([-1.2, 0.5, 2.0], dtype=torch.float64), torch.tensor([1.0, -0.3, 2.0], dtype=torch.float64)
    close(vmap(run)(xs, ys), tree.stack([run(x, y) for x, y in zip(xs, ys, strict=True)]), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["lbfgs", "sgd, zoom", "sgd, zoom by Armijo", "sgd, backtracking"])
def test_derivatives_through_a_search_are_the_slopes(name):
    optimizer = searches(optim)[name]

    def end(x):
        params = {"x": x, "y": torch.tensor(1.0, dtype=torch.float64)}
        return minimize(optim, optimizer, rosenbrock, params, 3)[0][-1]["y"]

    x = torch.tensor(-1.2, dtype=torch.float64)
    torch.testing.assert_close(slope_of(end)(x), (end(x + 1e-6) - end(x - 1e-6)) / 2e-6, rtol=1e-5, atol=1e-7)


def test_further_keywords_go_to_the_function():
    def f(p, data, *, power):
        return ((p["w"] - data) ** power).sum()

    optimizer = optim.chain(optim.sgd(1.0), optim.scale_by_zoom_linesearch(15))
    params, data = {"w": torch.zeros(3)}, torch.tensor([1.0, 2.0, 3.0])
    value, grad = value_and_grad(lambda p: f(p, data, power=2))(params)
    given = {"value": value, "grad": grad, "value_fn": f}
    updates, _ = optimizer.update(grad, optimizer.init(params), params, **given, data=data, power=2)
    torch.testing.assert_close(updates["w"], data)
    with pytest.raises(TypeError, match=r"scale_by_zoom_linesearch got the keyword .date., which value_fn does"):
        optimizer.update(grad, optimizer.init(params), params, **given, date=data, power=2)


@pytest.mark.parametrize("search", [optim.scale_by_zoom_linesearch, optim.scale_by_backtracking_linesearch])
def test_no_step_is_made_where_no_value_is_finite(search):
    def f(p):
        return torch.where(p["w"] == 1.0, p["w"] ** 2, p["w"] * torch.nan).sum()

    optimizer, params = search(5), {"w": torch.tensor([1.0])}
    state = optimizer.init(params)
    given = {"value": torch.tensor(1.0), "grad": {"w": torch.tensor([2.0])}, "value_fn": f}
    updates, state = optimizer.update({"w": torch.tensor([-2.0])}, state, params, **given)
    assert updates["w"].item() == 0
    assert state.info.decrease_error.isinf()


def test_complex_parameters_descend():
    def f(p):
        return ((p["z"] - (1 + 2j)).abs() ** 2).sum() + (p["z"].real ** 2 * 3).sum()

    params = {"z": torch.tensor([3.0 - 1j, 0.5j], dtype=torch.complex128)}
    grads = {"z": 2 * (params["z"] - (1 + 2j)) + 6 * params["z"].real}

    def derivative(p):
        leaf = p["z"].clone().requires_grad_()
        return {"z": torch.autograd.grad(f({"z": leaf}), leaf)[0]}

    close(derivative(params), grads)
    optimizer = optim.scale_by_lbfgs()
    state = optimizer.init(params)
    for _ in range(12):
        updates, state = optimizer.update(derivative(params), state, params)
        params = {"z": params["z"] - 0.7 * updates["z"]}
    torch.testing.assert_close(params["z"], torch.full((2,), 0.25 + 2j, dtype=torch.complex128), rtol=0, atol=1e-4)


def test_half_precision_parameters_are_searched_in_float32():
    def f(p):
        return tree.global_norm(tree.map(lambda x: x - 0.5, p)) ** 2

    params = example(dtype=torch.bfloat16)
    seen, state = minimize(optim, optim.lbfgs(), f, params, 4)
    tree.check_like(seen[-1], params, dtype=True)
    assert f(seen[-1]) < 0.02 * f(params)
    assert state[0].params["a"].dtype == torch.float32
    assert state[2].learning_rate.dtype == torch.float32


def test_verbose_searches_tell_of_failures(capsys):
    params, uphill = {"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}
    given = {"value": torch.tensor(1.0), "grad": uphill, "value_fn": lambda p: (p["w"] ** 2).sum()}
    for search in (optim.scale_by_zoom_linesearch, optim.scale_by_backtracking_linesearch):
        rule = search(2, verbose=True)
        rule.update(uphill, rule.init(params), params, **given)
        assert "value 1.0, slope 4.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: optim.scale_by_lbfgs(0), ValueError, r"memory_size is 0, and must be at least 1"),
        (
            lambda: optim.scale_by_lbfgs().update(example(), optim.lbfgs().init(example())[0]),
            ValueError,
            "scale_by_lbfgs",
        ),
        (
            lambda: optim.scale_by_zoom_linesearch(5, initial_guess_strategy="two"),
            ValueError,
            r"initial_guess_strategy is 'two'",
        ),
        (
            lambda: optim.lbfgs().update(example(), optim.lbfgs().init(example()), example()),
            ValueError,
            r"scale_by_zoom_linesearch needs value: .*value=value",
        ),
        (
            lambda: optim.value_and_grad_from_state(rosenbrock)(start(), state=optim.sgd(0.1).init(start())),
            ValueError,
            r"found 0 values with gradients in the state",
        ),
        (lambda: optim.scale_by_zoom_linesearch(5, tol=torch.ones(2)), ValueError, r"tol has shape \(2,\)"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        call()

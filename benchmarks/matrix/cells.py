"""The columns of the matrix: what is done to a layer, as functions of a kit."""

import sys
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from funcnet import Model, random, tree
from matrix.kits import Kit
from matrix.layers import Layer

MEMBERS = 3
STEPS = 3
THREADS, CALLS = 4, 6


class Case(NamedTuple):
    """A layer with values. What is differentiated are its parameters and a shift of its inputs."""

    module: nn.Module
    reference: nn.Module
    params: dict[str, Tensor]
    state: dict[str, Tensor]
    inputs: tuple[Tensor, ...]
    shifts: tuple[Tensor, ...]
    direction: Any  # a tangent for (params, shifts)
    key: Tensor

    @property
    def wrt(self) -> Any:
        return self.params, self.shifts

    def members(self) -> tuple[Any, Any]:
        """Several members' `wrt` and state, stacked: each another way off along the direction."""
        offs = [tree.map(lambda a, b, i=i: a + 0.3 * i * b, self.wrt, self.direction) for i in range(MEMBERS)]
        return tree.stack(offs), tree.stack([self.state] * MEMBERS)


def case_of(layer: Layer, dtype: torch.dtype = torch.float64) -> Case:
    """Draw everything from fixed keys; no parameter is left at zero or one."""
    init, noise, example, along = random.split(random.key(len(layer.name)), 4)
    modules = []
    for constructor in (layer.constructor, layer.reference):
        with random.seeded(init), default_dtype(dtype):
            modules.append(constructor())
    module, reference = modules
    with torch.no_grad():
        parameters = list(module.parameters())
        for parameter, k in zip(parameters, random.split(noise, max(len(parameters), 1)), strict=False):
            parameter += 0.2 * random.normal(k, tuple(parameter.shape), dtype)
    reference.load_state_dict(module.state_dict())
    _, params, state = Model.from_module(module)
    inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in layer.example(example))
    shifts = tuple(torch.zeros_like(x[:1]) for x in inputs[: layer.differentiable] if x.is_floating_point())
    leaves, structure = tree.flatten((params, shifts))
    keys = random.split(along, len(leaves))
    direction = [0.1 * random.normal(k, tuple(leaf.shape), dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return Case(module, reference, params, state, inputs, shifts, tree.unflatten(structure, direction), random.key(7))


@contextmanager
def default_dtype(dtype: torch.dtype) -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def weigh(output: Any) -> Tensor:
    """A scalar of every floating leaf, neither linear nor symmetric in its elements."""
    total: Any = 0.0
    for leaf in tree.leaves(output):
        if leaf.is_floating_point():
            wide = leaf if leaf.dtype == torch.float64 else leaf.float()
            ramp = torch.arange(leaf.numel(), dtype=wide.dtype).reshape(leaf.shape)
            total = total + (torch.cos(ramp) * wide + (0.5 + 0.3 * torch.sin(ramp)) * wide * wide).sum()
    return total  # type: ignore[no-any-return]  # a 0-dim tensor


def smooth(output: Any) -> tuple[Tensor, ...]:
    """The leaves that have derivatives."""
    return tuple(leaf for leaf in tree.leaves(output) if leaf.is_floating_point())


def _digest(leaf: Tensor) -> Tensor:
    """One number for a tensor, so that many results can be kept; a mask's infinities count as ones."""
    if not leaf.is_floating_point():
        return leaf.sum()
    return weigh(leaf.nan_to_num(torch.nan, 1.0, -1.0)) / max(leaf.numel(), 1)


def _shifted(inputs: tuple[Tensor, ...], shifts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (*(x + shift for x, shift in zip(inputs, shifts, strict=False)), *inputs[len(shifts) :])


def _forward(kit: Kit) -> Callable[..., Any]:
    def forward(wrt: Any, state: Any, inputs: Any, key: Tensor) -> Any:
        return kit.apply(wrt[0], state, _shifted(inputs, wrt[1]), key)

    return forward


def _loss(kit: Kit) -> Callable[..., Any]:
    def loss(wrt: Any, state: Any, inputs: Any, key: Tensor) -> Any:
        output, new = _forward(kit)(wrt, state, inputs, key)
        return weigh(output), (smooth(output), new)

    return loss


def _scalar(kit: Kit, case: Case) -> Callable[[Any], Tensor]:
    return lambda wrt: weigh(_forward(kit)(wrt, case.state, case.inputs, case.key)[0])


def _everything(case: Case) -> tuple[Any, ...]:
    return case.wrt, case.state, case.inputs, case.key


def pure_call(kit: Kit, case: Case) -> Any:
    train = [kit.apply(case.params, case.state, case.inputs, case.key) for _ in range(2)]
    evaluation = kit.apply(case.params, case.state, case.inputs, case.key, train=False)
    return {"train": train[0], "again": train[1], "evaluation": evaluation}


def gradient(kit: Kit, case: Case) -> Any:
    return kit.grad(_loss(kit), has_aux=True)(*_everything(case))


def ensemble(kit: Kit, case: Case) -> Any:
    return kit.ensemble(kit.grad(_loss(kit), has_aux=True))(*case.members(), case.inputs, case.key)


def per_example(kit: Kit, case: Case) -> Any:
    return kit.per_example_grad(_loss(kit))(*_everything(case))


def jvp(kit: Kit, case: Case) -> Any:
    def f(wrt: Any) -> Any:
        return smooth(_forward(kit)(wrt, case.state, case.inputs, case.key)[0])

    return kit.jvp(f, (case.wrt,), (case.direction,))


def hvp(kit: Kit, case: Case) -> Any:
    return kit.hvp(_scalar(kit, case), case.wrt, case.direction)


def reverse_over_reverse(kit: Kit, case: Case) -> Any:
    return kit.grad(lambda wrt: weigh(kit.grad(_scalar(kit, case))(wrt)))(case.wrt)


def jit_hvp(kit: Kit, case: Case) -> Any:
    return kit.jit(lambda wrt, direction: kit.hvp(_scalar(kit, case), wrt, direction))(case.wrt, case.direction)


def jit_forward(kit: Kit, case: Case) -> Any:
    return kit.jit(_forward(kit))(*_everything(case))


def jit_grad(kit: Kit, case: Case) -> Any:
    return kit.jit(kit.grad(_loss(kit), has_aux=True))(*_everything(case))


def jit_per_example(kit: Kit, case: Case) -> Any:
    return kit.jit(kit.per_example_grad(_loss(kit)))(*_everything(case))


def remat(kit: Kit, case: Case) -> Any:
    return kit.grad(kit.remat(_loss(kit)), has_aux=True)(*_everything(case))


def jit_remat(kit: Kit, case: Case) -> Any:
    return kit.jit(kit.grad(kit.remat(_loss(kit)), has_aux=True))(*_everything(case))


def _through_time(kit: Kit, case: Case) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A gradient through the layer at each step of a sequence, its state carried along, a key for each step."""

    def total(wrt: Any, state: Any, sequence: Any, keys: Tensor) -> Any:
        def step(carry: Any, x: Any) -> Any:
            state, loss = carry
            output, state = _forward(kit)(wrt, state, *x)
            return (state, loss + weigh(output)), smooth(output)

        start = torch.zeros((), dtype=torch.float64)
        (state, loss), outputs = kit.scan(step, (state, start), (sequence, keys))
        return loss, (outputs, state)

    sequence = tuple(torch.stack([x.roll(t, 0) for t in range(STEPS)]) for x in case.inputs)
    arguments = (case.wrt, case.state, sequence, random.split(case.key, STEPS))
    return kit.grad(total, has_aux=True), arguments


def scan(kit: Kit, case: Case) -> Any:
    f, arguments = _through_time(kit, case)
    return f(*arguments)


def jit_scan(kit: Kit, case: Case) -> Any:
    f, arguments = _through_time(kit, case)
    return kit.jit(f)(*arguments)


def threads(kit: Kit, case: Case) -> Any:
    """Gradients of different members at once, several times each."""
    stacked, _ = case.members()
    members = tree.unstack(stacked)

    def call(i: int) -> Any:
        member = members[i % MEMBERS]
        run = kit.grad(_loss(kit), has_aux=True)
        results = [tree.map(_digest, run(member, case.state, case.inputs, random.key(i))) for _ in range(CALLS)]
        return tree.stack(results)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        return kit.threads([lambda i=i: call(i) for i in range(THREADS)])
    finally:
        sys.setswitchinterval(interval)


def autocast(kit: Kit, case: Case) -> Any:
    """A gradient in bfloat16 autocast; the case is one of float32."""
    with torch.autocast("cpu", torch.bfloat16):
        return gradient(kit, case)


# Two-level nestings: each verb takes a function of (wrt, key) and gives another.
F = Callable[[Any, Tensor], Any]


def _nest_grad(kit: Kit, case: Case, f: F) -> F:
    return lambda wrt, key: kit.grad(lambda w: weigh(f(w, key)))(wrt)


def _nest_jvp(kit: Kit, case: Case, f: F) -> F:
    return lambda wrt, key: kit.jvp(lambda w: f(w, key), (wrt,), (case.direction,))


def _nest_vmap(kit: Kit, case: Case, f: F) -> F:
    def mapped(wrt: Any, key: Tensor) -> Any:
        def one(off: Tensor, key: Tensor) -> Any:
            return f(tree.map(lambda a, b: a + off * b, wrt, case.direction), key)

        offs = torch.linspace(-0.5, 0.5, MEMBERS, dtype=torch.float64)
        return kit.vmap(one)(offs, random.split(key, MEMBERS))

    return mapped


def _nest_remat(kit: Kit, case: Case, f: F) -> F:
    return kit.remat(f)


NESTS = {"grad": _nest_grad, "jvp": _nest_jvp, "vmap": _nest_vmap, "remat": _nest_remat}


def nested(kit: Kit, case: Case, outer: str, inner: str, jitted: bool) -> Any:
    def f(wrt: Any, key: Tensor) -> Any:
        return smooth(_forward(kit)(wrt, case.state, case.inputs, key)[0])

    composed = NESTS[outer](kit, case, NESTS[inner](kit, case, f))
    return (kit.jit(composed) if jitted else composed)(case.wrt, case.key)


CELLS: dict[str, Callable[..., Any]] = {
    "pure call": pure_call,
    "grad": gradient,
    "ensemble": ensemble,
    "per-example grad": per_example,
    "jvp": jvp,
    "hvp": hvp,
    "reverse over reverse": reverse_over_reverse,
    "jit hvp": jit_hvp,
    "jit forward": jit_forward,
    "jit grad": jit_grad,
    "jit per-example": jit_per_example,
    "remat": remat,
    "jit remat": jit_remat,
    "scan": scan,
    "jit scan": jit_scan,
    "threads": threads,
    "autocast": autocast,
    "nested": nested,  # takes a composition as well, which the judge draws
}

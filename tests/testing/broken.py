"""Modules and functions with one fault each, for the checks to find."""

import random as python_random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from funcnet import random

CACHE: dict[Any, Tensor] = {}
LOG: list[int] = []
SEEN: list[int] = []
COUNT = 0
SHARED: dict[str, Tensor] = {}


def within(part: type[nn.Module]) -> nn.Module:
    """A faulty part between good ones, under the path `inner.part`."""

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.after = nn.Linear(4, 4), nn.Linear(4, 3)
            self.inner = nn.ModuleDict({"part": part()})

        def forward(self, x: Tensor) -> Tensor:
            return self.after(self.inner["part"](self.before(x).tanh()))

    return Whole()


class Box:
    """An object that is no module."""

    value: Any = None
    calls = 0


# What depends on more than its arguments, or writes what is not its own.


class NumpyDraw(nn.Module):
    def forward(self, x):
        return x * float(np.random.rand())


class PythonDraw(nn.Module):
    def forward(self, x):
        return x * python_random.random()


class OwnGenerator(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator = np.random.default_rng(0)

    def forward(self, x):
        return x * float(self.generator.random())


class FreshGenerator(nn.Module):
    def forward(self, x):
        return x * float(np.random.default_rng().random())


class CountsInGlobal(nn.Module):
    def forward(self, x):
        global COUNT
        COUNT += 1
        return x


class AppendsToGlobal(nn.Module):
    def forward(self, x):
        LOG.append(len(x))
        return x


class AppendsInside(nn.Module):
    def forward(self, x):
        def record():
            SEEN.append(1)

        record()
        return x


class FillsGlobalCache(nn.Module):
    def forward(self, x):
        if x.shape not in CACHE:
            CACHE[x.shape] = torch.ones_like(x)
        return x * CACHE[x.shape]


class WritesClassAttribute(nn.Module):
    last = None

    def forward(self, x):
        type(self).last = x
        return x


class MutableDefault(nn.Module):
    def forward(self, x, seen=[]):  # noqa: B006 - the fault
        seen.append(1)
        return x


class StaleAttribute(nn.Module):
    def forward(self, x):
        if not hasattr(self, "mean"):
            self.mean = x.mean()
        return x - self.mean


class StaleObject(nn.Module):
    def __init__(self):
        super().__init__()
        self.box = Box()

    def forward(self, x):
        if self.box.value is None:
            self.box.value = x.mean()
        return x - self.box.value


class CachesWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.doubled = None

    def forward(self, x):
        if self.doubled is None:
            self.doubled = 2 * self.weight
        return x * self.doubled


class CountsCalls(nn.Module):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return x / self.calls


class WritesData(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x):
        self.weight.data.mul_(0.9)
        return x * self.weight


class WritesParameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x):
        with torch.no_grad():
            self.weight.mul_(0.9)
        return x * self.weight


# Derivatives


def autograd_function(backward, jvp, vmap=None, forward=lambda x: x * x):
    """`x**2`, or another function, with the given rules."""

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return forward(x)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

    Square.backward = staticmethod(lambda ctx, g: backward(ctx.saved_tensors[0], g))
    Square.jvp = staticmethod(lambda ctx, t: jvp(ctx.saved_tensors[0], t))
    Square.vmap = staticmethod(vmap or (lambda info, dims, x: (Square.apply(x), dims[0])))
    return Square.apply


def right(x, g):
    return 2 * x * g


def wrong_in_column_1(x, g):
    weights = torch.ones_like(x)
    weights[..., 1] = 1.5
    return right(x, g) * weights


def right_once(x, g):
    return right(x.detach(), g)


wrong_backward = autograd_function(wrong_in_column_1, right)
wrong_tangent = autograd_function(right, lambda x, t: 3 * x * t)
wrong_second_order = autograd_function(right_once, right)
mixes_examples = autograd_function(right, right, lambda info, dims, x: ((x - x.mean(dims[0], True)) ** 2, dims[0]))
turned = autograd_function(
    lambda x, g: g, lambda x, t: t, lambda info, dims, x: (x.flip(dims[0]), dims[0]), forward=torch.clone
)
wrong_for_a_batch = autograd_function(lambda x, g: right(x, turned(g)), right)
reverses_examples = autograd_function(right, right, lambda info, dims, x: ((x * x).flip(dims[0]), dims[0]))
no_batching_rule = autograd_function(right, right, lambda info, dims, x: (_ for _ in ()).throw(RuntimeError("no rule")))


def module_of(function):
    """A module without parameters that applies a function."""

    class Applies(nn.Module):
        def forward(self, x):
            return function(x)

    return Applies


# Compilation, recomputation, threads


class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class ReadsItem(nn.Module):
    def forward(self, x):
        return x * x.abs().max().item()


class KnowsGradMode(nn.Module):
    def forward(self, x):
        return x if torch.is_grad_enabled() else 2 * x


def long(x):
    """Takes time enough for another thread to come between, on a busy machine as well."""
    for _ in range(20):
        x = x.tanh().sin().cos()
    return x


class SharesGlobal(nn.Module):
    def forward(self, x):
        SHARED["x"] = x
        y = long(x)
        return y * SHARED["x"]


class SharesClassAttribute(nn.Module):
    x: Any = None

    def forward(self, x):
        SharesClassAttribute.x = x
        y = long(x)
        return y * SharesClassAttribute.x


class SharesStack(nn.Module):
    stack: Any = []  # noqa: RUF012 - the fault

    def forward(self, x):
        self.stack.append(x)
        y = long(x)
        return y * self.stack.pop(0)


# Randomness


class AlwaysDrops(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5)


class IgnoresKey(nn.Module):
    def forward(self, x):
        if not self.training:
            return x
        torch.rand(())  # asks for a key
        with random.seeded(random.key(0)):
            return F.dropout(x, 0.5)


class NumpyInit(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(np.random.rand(4), dtype=torch.float32))

    def forward(self, x):
        return x * self.weight


class FixedInit(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(random.normal(random.key(0), (4,)))

    def forward(self, x):
        return x * self.weight


# Dtypes


class Upcasts(nn.Module):
    def forward(self, x):
        return x.float() * 2


class MakesFloat32(nn.Module):
    def forward(self, x):
        return torch.ones(4) + torch.zeros(4).masked_fill(x[..., 0].sum() > 0, 1.0) + x * 0


class ThroughNumpy(nn.Module):
    def forward(self, x):
        return torch.from_numpy(np.tanh(x.detach().double().numpy())) + x.double()


class WidensState(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        self.mean = self.mean.double() + x.mean(0).detach()
        return x


class KnowsTracing(nn.Module):
    def forward(self, x):
        return x if type(x + 0) is Tensor else 2 * x  # a traced tensor is of a class of its own


def counting():
    calls = []

    def counts(x):
        calls.append(1)
        return x * len(calls)

    return counts


def hides_a_tensor():
    hidden = torch.ones(4, requires_grad=True)
    return lambda x: autograd_function(right, right)(hidden) * x

"""Three ways to do the same things to a module: funcnet, raw `torch.func`, and slowly.

A cell of the matrix is a function of a `Kit`; run with the slow kit it gives the reference. The slow kit is the module
itself under plain `torch.autograd`: `vmap` is a loop, a Jacobian-vector product is the derivative of the
vector-Jacobian product by its vector (which is linear in it), `remat` and `jit` do nothing, and threads take turns.
"""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

import funcnet
from funcnet import Model, control, random, tree
from matrix.written import Formulas

Function = Callable[..., Any]


class Kit:
    """What a cell may do, with funcnet's arguments and results. The derived verbs follow from the first ones."""

    def apply(self, params: Any, state: Any, inputs: Any, key: Tensor, train: bool = True) -> Any:
        raise NotImplementedError

    def grad(self, f: Function, *, has_aux: bool = False) -> Function:
        raise NotImplementedError

    def vmap(self, f: Function, in_dims: Any = 0) -> Function:
        raise NotImplementedError

    def jvp(self, f: Function, primals: Any, tangents: Any) -> Any:
        raise NotImplementedError

    def jit(self, f: Function) -> Function:
        return f

    def remat(self, f: Function) -> Function:
        return f

    def scan(self, f: Function, init: Any, xs: Any) -> Any:
        ys = []
        for t in range(len(tree.leaves(xs)[0])):
            init, y = f(init, tree.map(lambda leaf, t=t: leaf[t], xs))
            ys.append(y)
        return init, tree.map(lambda *leaves: torch.stack(leaves), *ys)

    def threads(self, calls: list[Function]) -> list[Any]:
        return [call() for call in calls]

    def hvp(self, f: Function, primal: Any, tangent: Any) -> Any:
        return self.jvp(self.grad(f), (primal,), (tangent,))[1]

    def ensemble(self, f: Function) -> Function:
        """Over members stacked in positions 0 and 1; position 3 has one key, which is split."""

        def run(wrt: Any, state: Any, inputs: Any, key: Tensor) -> Any:
            keys = random.split(key, len(tree.leaves(wrt)[0]))
            return self.vmap(f, (0, 0, None, 0))(wrt, state, inputs, keys)

        return run

    def per_example_grad(self, f: Function) -> Function:
        """By position 0 with aux, over the examples in position 2; position 3 has one key, which is split."""

        def run(wrt: Any, state: Any, inputs: Any, key: Tensor) -> Any:
            def one(wrt: Any, state: Any, inputs: Any, key: Tensor) -> Any:
                return self.grad(f, has_aux=True)(wrt, state, tuple(x[None] for x in inputs), key)

            keys = random.split(key, len(inputs[0]))
            return self.vmap(one, (None, None, 0, 0))(wrt, state, inputs, keys)

        return run


class Funcnet(Kit):
    """The library."""

    def __init__(self, module: nn.Module, backend: str) -> None:
        self.model, _, _ = Model.from_module(module)
        self.backend = backend

    def apply(self, params: Any, state: Any, inputs: Any, key: Tensor, train: bool = True) -> Any:
        return self.model.apply(params, state, *inputs, key=key, train=train)

    def grad(self, f: Function, *, has_aux: bool = False) -> Function:
        return funcnet.grad(f, has_aux=has_aux)

    def vmap(self, f: Function, in_dims: Any = 0) -> Function:
        return funcnet.vmap(f, in_dims)

    def jvp(self, f: Function, primals: Any, tangents: Any) -> Any:
        return funcnet.jvp(f, primals, tangents)

    def jit(self, f: Function) -> Function:
        return funcnet.jit(f, backend=self.backend)

    def remat(self, f: Function) -> Function:
        return control.remat(f)

    def scan(self, f: Function, init: Any, xs: Any) -> Any:
        return control.scan(f, init, xs)

    def threads(self, calls: list[Function]) -> list[Any]:
        return _concurrently(calls)

    def hvp(self, f: Function, primal: Any, tangent: Any) -> Any:
        return funcnet.hvp(f, (primal,), (tangent,))

    def ensemble(self, f: Function) -> Function:
        return funcnet.ensemble(f, (0, 1), keys=3)

    def per_example_grad(self, f: Function) -> Function:
        return funcnet.per_example_grad(f, batch=2, keys=3, has_aux=True)


class Raw(Kit):
    """What torch offers: `functional_call` on the module, the verbs of `torch.func`, `checkpoint`, `torch.compile`.

    There are no keys, so every draw comes from the global generator; buffers are cloned before each call, as someone
    would who wants them back; `scan` is the Python loop that torch's public names leave.
    """

    def __init__(self, module: nn.Module, backend: str) -> None:
        self.module = copy.deepcopy(module)
        self.backend = backend

    def apply(self, params: Any, state: Any, inputs: Any, key: Tensor, train: bool = True) -> Any:
        self.module.train(train)
        held = {name for name, _ in self.module.named_buffers()}
        buffers = {name: value.clone() for name, value in state.items() if name in held}
        output = torch.func.functional_call(self.module, {**params, **buffers}, tuple(inputs))
        return output, {name: buffers[name] if name in held else at(self.module, name) for name in state}

    def grad(self, f: Function, *, has_aux: bool = False) -> Function:
        return torch.func.grad(f, has_aux=has_aux)

    def vmap(self, f: Function, in_dims: Any = 0) -> Function:
        return torch.func.vmap(f, in_dims, randomness="different")

    def jvp(self, f: Function, primals: Any, tangents: Any) -> Any:
        return torch.func.jvp(f, primals, tangents)

    def jit(self, f: Function) -> Function:
        return torch.compile(f, backend=self.backend)

    def remat(self, f: Function) -> Function:
        return lambda *args: checkpoint(f, *args, use_reentrant=False)

    def threads(self, calls: list[Function]) -> list[Any]:
        return _concurrently(calls)


class Slow(Kit):
    """The reference. `keyed` draws from the key of each call, else from the global generator as `Raw`.

    `deep` is for more derivatives than two, which some of torch's kernels lack.
    """

    def __init__(self, module: nn.Module, keyed: bool, deep: bool) -> None:
        self.module = module
        self.keyed = keyed
        self.deep = deep

    def apply(self, params: Any, state: Any, inputs: Any, key: Tensor, train: bool = True) -> Any:
        # A copy of the module that holds copies of these tensors wherever it held its own, and may write into them.
        memo = {id(at(self.module, name)): value.clone() for name, value in {**params, **state}.items()}
        module = copy.deepcopy(self.module, memo).train(train)
        draws: AbstractContextManager[Any] = random.seeded(key) if self.keyed else nullcontext()
        formulas: AbstractContextManager[Any] = Formulas() if self.deep else nullcontext()
        with draws, formulas, sdpa_kernel(SDPBackend.MATH):  # the fused kernels have one derivative
            output = module(*inputs)
        return output, {name: at(module, name) for name in state}

    def grad(self, f: Function, *, has_aux: bool = False) -> Function:
        def gradient(x: Any, *rest: Any) -> Any:
            x = tree.map(_leaf, x)
            with torch.enable_grad():
                result = f(x, *rest)
            value, aux = result if has_aux else (result, None)
            grads = tree.unflatten(tree.structure(x), _pullback([value], tree.leaves(x), None))
            return (grads, aux) if has_aux else grads

        return gradient

    def vmap(self, f: Function, in_dims: Any = 0) -> Function:
        def mapped(*args: Any) -> Any:
            dims = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(args)
            size = next(len(tree.leaves(a)[0]) for a, d in zip(args, dims, strict=True) if d is not None)
            results = [
                f(
                    *(
                        a if d is None else tree.map(lambda leaf, i=i: leaf[i], a)
                        for a, d in zip(args, dims, strict=True)
                    )
                )
                for i in range(size)
            ]
            return tree.map(lambda *leaves: torch.stack(leaves), *results)

        return mapped

    def jvp(self, f: Function, primals: Any, tangents: Any) -> Any:
        primals = tree.map(_leaf, primals)
        with torch.enable_grad():
            output = f(*primals)
            leaves = tree.leaves(output)
            smooth = [leaf for leaf in leaves if leaf.requires_grad]
            cotangents = [torch.zeros_like(leaf).requires_grad_() for leaf in smooth]
            pulled = _pullback(smooth, tree.leaves(primals), cotangents)
            pushed = iter(_pullback(pulled, cotangents, tree.leaves(tangents)))
        flat = [next(pushed) if leaf.requires_grad else torch.zeros_like(leaf) for leaf in leaves]
        return output, tree.unflatten(tree.structure(output), flat)

    def hvp(self, f: Function, primal: Any, tangent: Any) -> Any:
        def along(x: Any) -> Tensor:
            pairs = zip(tree.leaves(self.grad(f)(x)), tree.leaves(tangent), strict=True)
            return sum((a * b).sum() for a, b in pairs)  # type: ignore[return-value]  # there is at least one leaf

        return self.grad(along)(primal)


def at(module: nn.Module, name: str) -> Any:
    """The tensor of a dotted name: an attribute, or an item of a list."""
    found: Any = module
    for part in name.split("."):
        found = found[int(part)] if isinstance(found, list | tuple) else getattr(found, part)
    return found


def _leaf(x: Tensor) -> Tensor:
    """A fresh place to differentiate at: within an outer graph a node of it, else a leaf."""
    return x.view_as(x) if x.requires_grad else x.detach().requires_grad_()


def _pullback(outputs: list[Tensor], inputs: list[Tensor], cotangents: list[Tensor] | None) -> list[Tensor]:
    kept = [i for i, output in enumerate(outputs) if output.requires_grad]
    if not kept:
        return [torch.zeros_like(x) for x in inputs]
    grads = torch.autograd.grad(
        [outputs[i] for i in kept],
        inputs,
        None if cotangents is None else [cotangents[i] for i in kept],
        create_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    return list(grads)


def _concurrently(calls: list[Function]) -> list[Any]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]

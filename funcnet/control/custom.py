"""`custom_vjp` and `custom_jvp`: functions with derivatives of your own, with jax's contracts."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor

from funcnet import tree
from funcnet.control.custom_call import CustomCall, Like, kind_of
from funcnet.control.rule_kinds import ForwardRule, ReverseRule
from funcnet.control.rules import Cotangents, Recorded, Rule, Tensors, apply, is_inexact
from funcnet.tree.form import Form

__all__ = ["custom_jvp", "custom_vjp"]

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


class _Custom(Generic[P, R]):
    """What both share: the function, its arguments by position, and the call."""

    _missing: str  # what to write where no rule was given

    def __init__(self, f: Callable[P, R], nondiff_argnums: Sequence[int] = ()) -> None:
        """Take the function; its rule comes after."""
        if not callable(f):
            raise TypeError(f"{type(self).__name__} takes a function, not a {type(f).__name__}.")
        functools.update_wrapper(self, f)
        self.f = f
        self.nondiff_argnums = (nondiff_argnums,) if isinstance(nondiff_argnums, int) else tuple(nondiff_argnums)
        self.name = getattr(f, "__name__", type(f).__name__)
        try:
            self._signature: inspect.Signature | None = inspect.signature(f)
        except ValueError:  # torch's builtin functions have none
            self._signature = None

    def __repr__(self) -> str:
        """The function's name."""
        return f"{type(self).__name__}({self.name})"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function."""
        call, tensors = CustomCall.opened(self, self._positional(args, kwargs))
        outs = apply(self._rule(call), tensors)
        return call.out.filled(outs)  # type: ignore[no-any-return]  # what f returned

    def _rule(self, call: "CustomCall") -> Rule:
        raise NotImplementedError

    def _positional(self, args: Any, kwargs: Any) -> tuple[Any, ...]:
        if self._signature is None and not kwargs:
            return tuple(args)
        bound = (self._signature or inspect.signature(self.f)).bind(*args, **kwargs)
        bound.apply_defaults()
        if bound.kwargs:
            raise TypeError(
                f"{self.name} has derivatives by position, and cannot tell the position of its keyword-only argument "
                f"{next(iter(bound.kwargs))!r}. Take the * or ** out of its signature."
            )
        return bound.args

    def _no_rule(self) -> TypeError:
        how = self._missing.format(name=self.name)
        return TypeError(f"{self!r} has no derivative rule yet. Write {how} before it is called.")


# -- reverse mode


class custom_vjp(_Custom[P, R]):  # noqa: N801 - jax's name, used as a decorator
    """A function whose reverse-mode derivative is given by a rule: `f.defvjp(fwd, bwd)`, as in jax.

    `fwd(*args)` returns `(out, residuals)`, where `out` is what `f` returns and `residuals` any tree. `bwd(residuals,
    cotangent)` takes the cotangent of `out` and returns a tuple with one tree of cotangents for each argument. There
    None is zero, for an argument or any part of it; cotangents of integers are ignored, and those of integer outputs
    arrive as None. Floating cotangents are cast to the dtype of their argument.

    The rule is used under `grad`, `vjp` and all that is made of them, also below `vmap`, `jit` and plain
    `torch.autograd`. Second derivatives are those of `fwd` and `bwd`, so a `fwd` that calls `f` itself is asked again.
    Forward mode (`jvp`, `jacfwd`) is refused, as in jax; outside reverse mode (`hvp`, `hessian`) it differentiates
    `fwd` and `bwd`. In eager mode plain `torch.autograd`, which may differentiate its graph again at any time, keeps
    the arguments beside the residuals.

    Args:
        f: a pure function; keyword arguments are passed on by position.
        nondiff_argnums: positions of functions and options, which hold no tensors; `bwd` takes them first.

    Raises:
        TypeError: no rule, forward mode, or `f` uses a tensor around it that is being differentiated or mapped.
        TreeMismatchError: cotangents of another structure than the arguments, by path.

    >>> @custom_vjp
    ... def clipped(x, limit):  # the identity, whose gradient is clipped
    ...     return x
    >>> clipped.defvjp(lambda x, limit: (x, limit), lambda limit, ct: (ct.clamp(-limit, limit), None))
    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> (clipped(x, 0.5) * torch.tensor([0.1, 3.0])).sum().backward()
    >>> x.grad
    tensor([0.1000, 0.5000])
    """

    _missing = "{name}.defvjp(fwd, bwd)"

    def __init__(self, f: Callable[P, R], nondiff_argnums: Sequence[int] = ()) -> None:
        """Take the function; `defvjp` takes the rule."""
        super().__init__(f, nondiff_argnums)
        self.fwd: Callable[..., Any] | None = None
        self.bwd: Callable[..., Any] | None = None

    def defvjp(self, fwd: Callable[..., Any], bwd: Callable[..., Any]) -> None:
        """Set the rule: `fwd(*args) -> (out, residuals)` and `bwd(*nondiff, residuals, ct) -> cotangents`."""
        self.fwd, self.bwd = fwd, bwd

    def _rule(self, call: CustomCall) -> Rule:
        if self.fwd is None or self.bwd is None:
            raise self._no_rule()
        return _Vjp(call, self.fwd, self.bwd)


class _Vjp(ReverseRule):
    """One call of a `custom_vjp`."""

    def __init__(self, call: CustomCall, fwd: Callable[..., Any], bwd: Callable[..., Any]) -> None:
        self.call, self.fwd, self.bwd, self.name = call, fwd, bwd, call.name

    def run(self, *args: Tensor) -> Tensors:
        return self.call.run(*args)

    def push(self, primals: Tensors, tangents: Cotangents) -> Any:
        raise TypeError(
            f"forward mode (jvp, jacfwd) meets {self.name}, a custom_vjp, which has a rule for reverse mode only. Use "
            f"grad, vjp or jacrev inside it (as hvp and hessian do; then fwd must not call {self.name} again, but "
            f"compute), or define {self.name} by custom_jvp, whose rule serves both modes."
        )

    def record(self, args: Tensors) -> Recorded:
        call, bwd = self.call, self.bwd
        out, residuals = call.pair(self.fwd(*call.arguments(args)), "fwd", "(out, residuals)")
        outs, out_form = call.results(out), call.out
        kept, form = Form.opened(residuals)
        inexact = [is_inexact(o) for o in outs]

        def pullback(residuals: Tensors, cotangents: Tensors) -> Cotangents:
            given = iter(cotangents)
            cotangent = out_form.derivative([next(given) if moves else None for moves in inexact])
            grads = bwd(*call.fixed.values(), form.filled(residuals), cotangent)
            if not isinstance(grads, tuple) or len(grads) != len(call.likes):
                raise TypeError(
                    f"the bwd of {call.name} must return a tuple of {len(call.likes)}, one cotangent for each "
                    f"argument{' outside nondiff_argnums' if call.fixed else ''}, and returned {kind_of(grads)}."
                )
            return call.flat(dict(zip(call.likes, grads, strict=True)), call.likes, "cotangent", "its arguments")

        return Recorded(outs, kept, pullback)


# -- forward mode


class custom_jvp(_Custom[P, R]):  # noqa: N801 - jax's name, used as a decorator
    """A function whose derivative is given by a rule for forward mode: `@f.defjvp` or `f.defjvps`, as in jax.

    `rule(primals, tangents)` takes two tuples with one tree for each argument, and returns `(out, tangent)`, with
    a tangent that is linear in the tangents. The rule serves reverse mode as well, by its transpose. Tangents of
    integers and of what is no tensor are None; in what the rule returns, None is zero.

    Args:
        f: a pure function; keyword arguments are passed on by position.
        nondiff_argnums: positions of functions and options, which hold no tensors; the rule takes them first.

    Raises:
        TypeError: no rule, or `f` uses a tensor around it that is being differentiated or mapped.
        TreeMismatchError: a tangent of another structure than the output, by path.

    >>> @custom_jvp
    ... def log1pexp(x):
    ...     return torch.log1p(torch.exp(x))
    >>> @log1pexp.defjvp
    ... def rule(primals, tangents):
    ...     (x,), (dx,) = primals, tangents
    ...     return log1pexp(x), (1 - 1 / (1 + torch.exp(x))) * dx
    >>> torch.func.grad(log1pexp)(torch.tensor(100.0))  # without the rule, nan
    tensor(1.)
    """

    _missing = "@{name}.defjvp or {name}.defjvps(...)"

    def __init__(self, f: Callable[P, R], nondiff_argnums: Sequence[int] = ()) -> None:
        """Take the function; `defjvp` or `defjvps` take the rule."""
        super().__init__(f, nondiff_argnums)
        self.jvp: Callable[..., Any] | None = None

    def defjvp(self, rule: F) -> F:
        """Set the rule, `rule(*nondiff, primals, tangents) -> (out, tangent)`; returns it, to serve as a decorator."""
        self.jvp = rule
        return rule

    def defjvps(self, *rules: Callable[..., Any] | None) -> None:
        """Set a rule for each argument, `rule(tangent, out, *args) -> tangent`, whose results are summed.

        None stands for an argument that the output does not depend on.

        >>> product = custom_jvp(lambda x, y: x * y)
        >>> product.defjvps(lambda dx, out, x, y: dx * y, lambda dy, out, x, y: x * dy)
        >>> torch.func.grad(product)(torch.tensor(2.0), torch.tensor(5.0))
        tensor(5.)
        """
        if self.nondiff_argnums:
            raise TypeError(f"{self!r} has nondiff_argnums, which defjvps cannot place; write defjvp.")

        def jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
            if len(rules) != len(primals):
                raise TypeError(
                    f"defjvps of {self.name} got {len(rules)} rules, and the call {len(primals)} arguments."
                )
            out = self(*primals)  # type: ignore[call-arg]  # what the caller passed
            parts = [
                rule(tangent, out, *primals)
                for rule, tangent in zip(rules, tangents, strict=True)
                if rule is not None and tree.leaves(tangent)
            ]
            return out, functools.reduce(lambda a, b: tree.map(torch.add, a, b), parts) if parts else None

        self.jvp = jvp

    def _rule(self, call: CustomCall) -> Rule:
        if self.jvp is None:
            raise self._no_rule()
        return _Jvp(call, self.jvp)


class _Jvp(ForwardRule):
    """One call of a `custom_jvp`."""

    def __init__(self, call: CustomCall, jvp: Callable[..., Any]) -> None:
        self.call, self.jvp, self.name = call, jvp, call.name

    def run(self, *args: Tensor) -> Tensors:
        return self.call.run(*args)

    def push(self, primals: Tensors, tangents: Cotangents) -> tuple[Tensors, Cotangents]:
        call = self.call
        full = [
            torch.zeros_like(p) if t is None and is_inexact(p) else t for p, t in zip(primals, tangents, strict=True)
        ]
        result = self.jvp(*call.fixed.values(), call.form.filled(primals), call.form.derivative(full))
        out, moved = call.pair(result, "jvp rule", "(out, tangent)")
        outs = call.results(out)
        flat = call.flat(moved, tree.map(Like.of, out), "tangent", "its output")
        return outs, [
            torch.zeros_like(o) if t is None and is_inexact(o) else t for o, t in zip(outs, flat, strict=True)
        ]

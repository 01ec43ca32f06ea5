"""`jit`: one compiled graph for each kind of call, with donated memory and a count of compilations."""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar

import torch

from funcnet import _compat
from funcnet.jit.program import Call, Program
from funcnet.jit.signature import Arguments, Static, argument_names, keyword_names, names_of
from funcnet.transforms.gradients import differentiating

__all__ = ["Jitted", "RecompileError", "jit"]

P = ParamSpec("P")
R = TypeVar("R")
Names = int | str | Sequence[int | str]


class RecompileError(RuntimeError):
    """A jitted function met more kinds of arguments than `max_compiles`."""

    __module__ = "funcnet"


class Jitted(Generic[P, R]):
    """A compiled function: call it like the function. Made by `jit`."""

    def __init__(
        self,
        f: Callable[P, R],
        donate: Names,
        static: Names,
        mode: str | None,
        backend: str | Callable[..., Any],
        max_compiles: int,
    ) -> None:
        """See `jit`."""
        functools.update_wrapper(self, f)
        self._name = getattr(f, "__name__", type(f).__name__)
        self._f = f
        self._parameters = argument_names(f)
        keywords = keyword_names(f)
        self._donate = names_of(donate, self._parameters, "donate", self._name, keywords)
        self._static = names_of(static, self._parameters, "static", self._name, keywords)
        self._mode, self._backend, self._max_compiles = mode, backend, max_compiles
        self._programs: dict[Any, list[Program]] = {}
        self._compiling = threading.Lock()

    @property
    def compiles(self) -> int:
        """How many graphs have been compiled."""
        return sum(map(len, self._programs.values()))

    @property
    def eager(self) -> Callable[P, R]:
        """The function itself, uncompiled."""
        return self._f

    def __repr__(self) -> str:
        """The function's name, and how many graphs it has by now."""
        return f"jit({self._name}, compiles={self.compiles})"

    def __deepcopy__(self, memo: Any) -> "Jitted[P, R]":
        """Itself, so that a module that holds one can be copied: it does not change."""
        return self

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the compiled function, compiling it first for a kind of arguments not met before."""
        tracing = _compat.tracing()
        if not tracing and (_compat.transform_active() or differentiating() or _compat.forward_mode()):
            raise TypeError(
                f"{self._name} is jitted, and was called inside grad, vmap or another transform, which cannot look "
                f"into a compiled graph. Compile at the edge: write jit(grad({self._name}.eager)), not "
                f"grad(jit({self._name}))."
            )
        if tracing or _compat.watching():  # inside another jit, which compiles it all; or each operation is looked at
            return self._f(*args, **kwargs)
        values = (*args, *kwargs.values())
        if self._static:
            values = self._wrap_static(values, len(args), tuple(kwargs))
        kind = (len(args), tuple(kwargs), *_settings())
        found = self._find(kind, values)
        if found is None:
            with self._compiling:  # another thread may have compiled it meanwhile
                found = self._find(kind, values) or self._compile(kind, values)
        program, call = found
        return program.run(call)  # type: ignore[no-any-return]  # the outputs' types are the function's

    def _find(self, kind: Any, values: tuple[Any, ...]) -> tuple[Program, Call] | None:
        for program in self._programs.get(kind, ()):
            call = program.match(values)
            if call is not None:
                return program, call
        return None

    def _wrap_static(self, values: tuple[Any, ...], positional: int, keywords: tuple[str, ...]) -> tuple[Any, ...]:
        names = self._names(positional, keywords)
        return tuple(Static(v) if name in self._static else v for v, name in zip(values, names, strict=True))

    def _names(self, positional: int, keywords: tuple[str, ...]) -> tuple[str, ...]:
        known = self._parameters[:positional]
        extra = tuple(f"argument {i}" for i in range(len(known), positional))
        return (*known, *extra, *keywords)

    def _compile(self, kind: Any, values: tuple[Any, ...]) -> tuple[Program, Call]:
        positional, keywords = kind[0], kind[1]
        names = self._names(positional, keywords)
        arguments = Arguments.of(values, names)
        programs = self._programs.setdefault(kind, [])
        if self.compiles >= self._max_compiles:
            reason = (
                programs[0].signature.difference(arguments)
                if programs
                else "other arguments were given than before, or under other settings of torch"
            )
            raise RecompileError(
                f"{self._name} was compiled {self.compiles} times already, and this call would compile it again: "
                f"{reason}. A compiled graph has fixed shapes and Python values. Pad batches to one size (drop the "
                f"last short one), pass numbers that change as 0-dim tensors, or raise max_compiles if so many kinds "
                "are meant."
            )

        def flat(*values: Any) -> Any:
            plain = [v.value if isinstance(v, Static) else v for v in values]
            return self._f(*plain[:positional], **dict(zip(keywords, plain[positional:], strict=True)))

        donated = [i for i, name in enumerate(names) if name in self._donate]
        program = Program(flat, arguments, donated, name=self._name, backend=self._backend, mode=self._mode)
        # The newest first: a run that changed its batch size rarely goes back.
        self._programs[kind] = [program, *programs]
        call = program.match(values)
        assert call is not None  # it was made for these very values
        return program, call


def _settings() -> tuple[Any, ...]:
    """What torch has been told that a graph is made for."""
    return (
        torch.get_default_dtype(),
        _compat.default_device(),
        _compat.autocast_state(),
        torch.get_num_threads(),  # which Inductor writes into its loops
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
    )


def jit(
    f: Callable[P, R],
    *,
    donate: Names = (),
    static: Names = (),
    mode: str | None = None,
    backend: str | Callable[..., Any] = "inductor",
    max_compiles: int = 8,
) -> Jitted[P, R]:
    """Compile a pure function into one graph of fixed shapes, for each kind of arguments it is called with.

    The function runs once on tensors without values, and what it did is compiled: a Python branch or loop is
    unrolled as it went, tensors it closes over become hidden inputs, and prints happen while compiling only.

    Args:
        f: a pure function of pytrees of tensors. Tensors inside are traced; numbers, strings and other leaves are
            part of the kind, so a number that changes costs a compilation: pass it as a 0-dim tensor. So is the order
            of a dict's keys.
        donate: arguments, by position or name, whose memory the results may take. Each donated leaf is paired with the
            result of the same place, or else of the same shape and dtype. The argument cannot be read afterwards.
        static: arguments, by position or name, that are no trees but values, compared by `==`.
        mode: Inductor's mode: `"reduce-overhead"` replays CUDA graphs, `"max-autotune"` searches kernels.
        backend: `"inductor"`, or `"aot_eager"` and `"eager"`, which trace without compiling (for tests), or a function
            of a graph module and its example inputs.
        max_compiles: how many kinds may be compiled before a call is an error.

    Returns:
        The compiled function, with `.compiles`, the number of graphs so far, and `.eager`, the function itself.

    Raises:
        RecompileError: more than `max_compiles` kinds; the message names the argument that changed, and how.
        DonatedTensorError: a donated tensor is read again.
        CompilerMissingError: CPU code is wanted and there is no C++ compiler.
        TypeError: the call is inside a transform, an argument requires grad, or Python needs a tensor's value.

    >>> step = jit(lambda w, x: w - 0.5 * x, donate=0, backend="aot_eager")
    >>> step(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 2.0])), step.compiles
    (tensor([0., 1.]), 1)
    """
    if isinstance(f, Jitted):
        raise TypeError(f"jit was given {f!r}, which is jitted already: call jit once, on the function itself.")
    if not callable(f):
        raise TypeError(f"jit compiles a function, and was given a {type(f).__name__}.")
    if isinstance(f, torch.nn.Module):
        raise TypeError(
            f"jit was given the module {type(f).__name__}, whose parameters would be frozen into the graph. Make it "
            f"pure first: `model, params, state = Model.from_module(module)`, then jit a function that calls "
            "model.apply."
        )
    return Jitted(f, donate, static, mode, backend, max_compiles)

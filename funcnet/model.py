"""`Model`: any torch module's constructor as two pure functions, `init` and `apply`."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from funcnet import _compat, random, tree
from funcnet.pure import PureMode, Skeleton
from funcnet.pure.calls import Hooks, method_of
from funcnet.pure.inert import Line
from funcnet.pure.refusals import check_call, locate, refuse_tensors, refuse_writing, settled
from funcnet.pure.skeleton import Loan
from funcnet.pure.writes import versions, written_through_data

__all__ = ["Model", "Params", "State"]

Params: TypeAlias = dict[str, Tensor]
"""Trainable tensors by their dotted names, as in `state_dict()`; a tied one appears once, under its first name."""
State: TypeAlias = dict[str, Tensor]
"""All other tensors of a model: buffers, persistent or not, plain tensor attributes, frozen parameters."""


class Model:
    """A torch module as pure functions over plain dicts of tensors.

    Args:
        constructor: a class or function that returns an `nn.Module`.
        *args: what it is called with.
        **kwargs: likewise.

    >>> model = Model(nn.Linear, 3, 2)
    >>> params, state = model.init(random.key(0))
    >>> {name: tuple(p.shape) for name, p in params.items()}
    {'weight': (2, 3), 'bias': (2,)}
    >>> output, state = model.apply(params, state, torch.ones(5, 3), train=True)
    >>> output.shape, torch.equal(output, model(params, state, torch.ones(5, 3)))
    (torch.Size([5, 2]), True)
    """

    def __init__(self, constructor: Callable[..., nn.Module], *args: Any, **kwargs: Any) -> None:
        """Keep the constructor; nothing is built yet."""
        if isinstance(constructor, nn.Module):
            raise TypeError(
                f"Model takes a constructor, and was given a {type(constructor).__name__} that is built already. Write "
                f"Model({type(constructor).__name__}, ...), or Model.from_module(module) to keep its weights."
            )
        if not callable(constructor):
            raise TypeError(
                f"Model takes a class or function that returns a module, not a {type(constructor).__name__}."
            )
        self._constructor: Callable[[], nn.Module] | None = lambda: constructor(*args, **kwargs)
        self._name = getattr(constructor, "__name__", type(constructor).__name__)
        check_call(constructor, self._name, args, kwargs)
        self._skeleton: Skeleton | None = None
        self._building = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Model":
        """Itself: a model never changes, and a module may hold one."""
        return self

    def __repr__(self) -> str:
        """The constructor's name."""
        return f"Model({self._name})"

    @classmethod
    def from_module(cls, module: nn.Module) -> tuple["Model", Params, State]:
        """A built (pretrained) module as `(model, params, state)`, with copies of its tensors.

        The module is left as it is. Parameters with `requires_grad=False` are frozen: they go to `state`.

        >>> module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval()
        >>> model, params, state = Model.from_module(module)
        >>> x = torch.ones(4, 3)
        >>> torch.equal(model(params, state, x), module(x))
        True
        """
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"from_module takes a built nn.Module, not a {type(module).__name__}; for a constructor write "
                "Model(...)."
            )
        model = cls.__new__(cls)
        model._name = type(module).__name__
        model._building = threading.Lock()
        model._constructor = None
        skeleton = model._skeleton = Skeleton(module)
        params, state = skeleton.take(module)
        return model, tree.map(torch.clone, params), tree.map(torch.clone, state)

    def init(
        self, key: Tensor, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> tuple[Params, State]:
        """Fresh parameters and state: the constructor runs with every random fill drawn from `key`.

        Args:
            key: a key; the same key gives the same values on every device.
            device: where the tensors are made. Default: torch's default device.
            dtype: what floating tensors are cast to. Default: as the constructor makes them.

        Raises:
            TypeError: the constructor returns no module, or the key is none.
        """
        with random.seeded(key), torch.device(device if device is not None else torch.get_default_device()):
            module = self._construct()
        params, state = self._skeleton_of(module).take(module)
        del module  # so that its tensors go, one by one, as their copies are made
        for leaves in (params, state):
            for name in leaves:
                # A constructor may hand out the same memory twice, or hold what the caller goes on to use.
                leaves[name] = leaves[name].clone()
        return (params, state) if dtype is None else (tree.cast(params, dtype), tree.cast(state, dtype))

    def __call__(self, params: Params, state: State, *args: Any, **kwargs: Any) -> Any:
        """Evaluate: the output of `apply` alone."""
        return self.apply(params, state, *args, **kwargs)[0]

    def apply(
        self,
        params: Params,
        state: State,
        *args: Any,
        key: Tensor | None = None,
        train: bool = False,
        method: str | Callable[..., Any] | None = None,
        capture: Sequence[str] = (),
        perturb: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the module on these tensors.

        Args:
            params: trainable tensors, as from `init`.
            state: all other tensors. A leaf may be moved from one dict to the other: names decide.
            *args: what the module's forward is called with.
            key: for dropout and all other randomness; needed when the call draws.
            train: train mode (dropout drops, BatchNorm uses the batch's statistics) instead of evaluation.
            method: another method to call than `forward`, by name or as a function of the module and `*args`.
            capture: globs of submodule names whose outputs are returned as well.
            perturb: what is added to the outputs of submodules, by the names that `captured` has; None in it is zero.
                The gradient with respect to it, at `tree.zeros_like(captured)`, is that of the captured outputs.
            **kwargs: what the module's forward is called with.

        Returns:
            `(output, state)` with the new state, and with `capture` `(output, state, captured)`: a dict by submodule
            name, with `name:1` for the output of a second call of the same submodule, and so on.

        Raises:
            TreeMismatchError: a tensor is missing, unexpected or of the wrong shape.
            MissingKeyError: the call draws random numbers, and there is no key.
            KeyError: `capture` or `perturb` names no submodule that is there, or none that is called.
            RuntimeError: the module wrote into a parameter or an argument, which is changed by then; or it updated
                state inside a `vmap` of its own.

        The gradient of one output with respect to an inner activation:

        >>> from funcnet import grad
        >>> model = Model(nn.Sequential, nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> params, state = model.init(random.key(0))
        >>> x = torch.ones(3)
        >>> _, _, captured = model.apply(params, state, x, capture="1")
        >>> score = lambda added: model.apply(params, state, x, perturb=added)[0][0]
        >>> torch.equal(grad(score)(tree.zeros_like(captured))["1"], params["2.weight"][0])
        True
        """
        skeleton = self._skeleton or self._skeleton_of(None)
        values = self._values(skeleton, params, state)
        if key is not None:
            random.check_key(key)
        loan = skeleton.lend(train)
        body = loan.body
        if body.line and not (method or capture or perturb or kwargs) and _tensors_alone(args):
            return self._run_inert(loan, body.line, values, args, train), dict(state)
        lent = {name: values[name].clone() for name in skeleton.lent[train]}
        filled = values | lent
        statistics = {id(filled[name]): name for name in state}
        if len(statistics) < len(state):  # the mode tells statistics apart by which tensor they are
            filled |= {name: filled[name].clone() for name in skeleton.written[True] - lent.keys() if name in state}
            statistics = {id(filled[name]): name for name in state}
        body.fill(filled)
        level = _compat.level()
        watched = bool(capture or perturb)
        mode = PureMode(key, statistics, loan, aside=not (watched or _compat.globally_hooked()))
        hooks = Hooks(body, mode, capture, perturb or {}) if watched else None
        # Then none but torch's own code runs, and leaves nothing in the module's attributes.
        harmless = loan.traceless = body.harmless and mode.aside and method is None
        inputs = args if _all_tensors(args) and not kwargs else tree.leaves((args, kwargs))
        before = [] if harmless else versions((*values.values(), *inputs))
        try:
            with mode:
                output = method_of(body.module, method)(*args, **kwargs)
        except Exception as error:
            locate(error, body, repr(self), train)
            raise
        finally:
            if hooks is not None:
                hooks.remove()
        changed = body.changed(filled) if lent or not harmless else {}
        if not harmless and versions((*values.values(), *inputs)) != before:
            refuse_writing(repr(self), before, values, args, kwargs, mode)
        if mode.peeked and any(written_through_data(mode, leaf) for leaf in (*values.values(), *inputs)):
            refuse_writing(repr(self), before, values, args, kwargs, mode)
        written = {name: copy for name, copy in lent.items() if _written(copy) or written_through_data(mode, copy)}
        news = settled(repr(self), written | changed | mode.updates, level)
        new_state = {name: news.get(name, value) for name, value in state.items()}
        if hooks is not None:
            hooks.check()
        return (output, new_state, hooks.captured) if hooks is not None and capture else (output, new_state)

    def _run_inert(self, loan: Loan, line: Line, values: Mapping[str, Tensor], args: Sequence[Any], train: bool) -> Any:
        """The call of a module that would ask nothing of the mode, and writes and leaves nothing."""
        loan.cleared = True
        try:
            return line.run(values, args)
        except Exception as error:
            locate(error, loan.body, repr(self), train)
            raise

    def bind(self, params: Params, state: State) -> nn.Module:
        """A real module that owns copies of these tensors: for export, quantization, `state_dict()`, anything torch.

        >>> model = Model(nn.Linear, 3, 2)
        >>> params, state = model.init(random.key(0))
        >>> sorted(model.bind(params, state).state_dict())
        ['bias', 'weight']
        """
        skeleton = self._skeleton or self._skeleton_of(None)
        return skeleton.build(self._values(skeleton, params, state))

    def _construct(self) -> nn.Module:
        if self._constructor is None:
            raise TypeError(
                f"{self!r} was made from a built module, and has no constructor to draw fresh parameters with. Use "
                f"those that from_module returned, or write Model({self._name}, ...) and init(key)."
            )
        module = self._constructor()
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"Model({self._name}) needs a constructor that returns an nn.Module, and it returned a "
                f"{type(module).__name__}. Pass a module class, or a function such as lambda: nn.Sequential(...)."
            )
        return module

    def _skeleton_of(self, module: nn.Module | None) -> Skeleton:
        """The skeleton, made once: from a module at hand, or from one built on the meta device, or with values."""
        with self._building:
            if self._skeleton is None:
                self._skeleton = Skeleton(module if module is not None else self._bare())
            return self._skeleton

    def _bare(self) -> nn.Module:
        try:
            with random.seeded(random.key(0)), torch.device("meta"):
                return self._construct()
        except (NotImplementedError, RuntimeError):  # the constructor reads values, which meta tensors lack
            with random.seeded(random.key(0)):
                return self._construct()

    def _values(self, skeleton: Skeleton, params: Params, state: State) -> dict[str, Tensor]:
        """All tensors by name, checked."""
        if not isinstance(params, Mapping) or not isinstance(state, Mapping):
            wrong, what = (params, "params") if not isinstance(params, Mapping) else (state, "state")
            raise TypeError(
                f"{self!r} takes {what} as a dict of tensors by name, and got a {type(wrong).__name__}: the order is "
                f"model.apply(params, state, x), with both from model.init(key)."
            )
        values = {**params, **state}
        if len(values) != len(params) + len(state) or not skeleton.fits(values):
            refuse_tensors(repr(self), skeleton, params, state)
        return values


def _all_tensors(args: Sequence[Any]) -> bool:
    return all(isinstance(arg, Tensor) for arg in args)


def _tensors_alone(args: Sequence[Any]) -> bool:
    """Whether nothing but torch's own code runs in a call of torch's own modules."""
    return _all_tensors(args) and not _compat.globally_hooked()


def _written(lent: Tensor) -> bool:
    """Whether the call wrote into a buffer that it was lent: a fresh copy counts its writes from zero.

    The wrappers of a transform do not count.
    """
    return _compat.transform_active() or lent.is_inference() or lent._version > 0

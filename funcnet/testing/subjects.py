"""What is checked: a function with its arguments, or a model as the pure functions that it is."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from funcnet import MissingKeyError, Model, Params, State, random, tree
from funcnet.testing.failures import CheckError, compare, replay

__all__ = [
    "Body",
    "Call",
    "ModelCase",
    "Subject",
    "cases",
    "distinct",
    "examine",
    "is_model",
    "model_calls",
    "model_case",
    "model_of",
    "variants",
]

Subject: TypeAlias = Model | nn.Module | Callable[..., Any]
"""A pure function, a `Model`, a built module, or a module's class."""


class ModelCase(NamedTuple):
    """A model with the tensors that it is checked on."""

    model: Model
    built: bool  # from a module that was built already: it has no constructor to draw with
    params: Params
    state: State
    example: tuple[Any, ...]
    key: Tensor
    needs_key: bool  # in evaluation, too


class Call(NamedTuple):
    """One pure call: `f(*args)`."""

    title: str
    f: Callable[..., Any]
    args: tuple[Any, ...]
    names: tuple[str, ...]  # of the arguments
    case: ModelCase | None = None  # of a model: then `f` passes keywords on to `apply`
    train: bool = False
    inputs: int = 0  # how many of the last arguments are the module's own

    def named(self) -> dict[str, Any]:
        """The arguments by name: a tree whose paths can be read."""
        return dict(zip(self.names, self.args, strict=True))

    def afresh(self) -> "Call":
        """The same call of a copy of the model that was never called."""
        assert self.case is not None
        model, _, _ = Model.from_module(self.case.model.bind(self.case.params, self.case.state))
        return model_calls(self.case._replace(model=model))[self.train]

    def submodules(self) -> list[str]:
        """The paths of a model's submodules; none for a function."""
        found: list[str] = []

        def look(module: nn.Module, *args: Any) -> Tensor:
            found.extend(name for name, _ in module.named_modules() if name)
            return torch.zeros(())

        if self.case is not None:
            self.f(*self.args, method=look)
        return found


def is_model(subject: Any) -> bool:
    """Whether a subject is a model, and no function."""
    return isinstance(subject, Model | nn.Module) or (isinstance(subject, type) and issubclass(subject, nn.Module))


def model_of(subject: Subject, key: Tensor) -> tuple[Model, bool, Params, State]:
    """A model, whether it was built already, and its tensors; its forward is not run."""
    if isinstance(subject, nn.Module):
        model, params, state = Model.from_module(subject)
        return model, True, params, state
    model = subject if isinstance(subject, Model) else Model(subject)
    params, state = model.init(random.fold_in(key, 0))
    return model, False, params, state


def model_case(subject: Subject, example: tuple[Any, ...], key: Tensor) -> ModelCase:
    """The model with parameters, drawn from `key`, or those of a built module."""
    model, built, params, state = model_of(subject, key)
    apply_key = random.fold_in(key, 1)
    try:
        model(params, state, *example)
        needs_key = False
    except MissingKeyError:
        needs_key = True
    except Exception:
        needs_key = False  # whatever it is, the check meets it again and can say where
    return ModelCase(model, built, params, state, example, apply_key, needs_key)


def model_calls(case: ModelCase) -> list[Call]:
    """Evaluation and training; the first alone where the second does the same."""
    model = case.model

    def evaluate(params: Params, state: State, *example: Any, **options: Any) -> Any:
        result = model.apply(params, state, *example, **options)
        return result if options.get("capture") else result[0]

    def evaluate_with(params: Params, state: State, key: Tensor, *example: Any, **options: Any) -> Any:
        return evaluate(params, state, *example, key=key, **options)

    def train(params: Params, state: State, key: Tensor, *example: Any, **options: Any) -> Any:
        result = model.apply(params, state, *example, key=key, train=True, **options)
        return result if options.get("capture") else {"output": result[0], "state": result[1]}

    inputs = tuple(f"input {i}" for i in range(len(case.example)))
    tensors, with_key = ("params", "state"), ("params", "state", "key")
    args = (case.params, case.state, *case.example)
    keyed = (case.params, case.state, case.key, *case.example)
    evaluation = Call(f"{model!r} in evaluation", evaluate, args, (*tensors, *inputs), case, inputs=len(inputs))
    if case.needs_key:
        evaluation = evaluation._replace(f=evaluate_with, args=keyed, names=(*with_key, *inputs))
    training = Call(f"{model!r} in training", train, keyed, (*with_key, *inputs), case, True, len(inputs))
    return [evaluation, training]


def cases(subject: Subject, example: tuple[Any, ...], key: Tensor) -> list[Call]:
    """The calls that a subject stands for."""
    if is_model(subject):
        return model_calls(model_case(subject, example, key))
    name = getattr(subject, "__name__", type(subject).__name__)
    names = tuple(f"argument {i}" for i in range(len(example)))
    return [Call(name, subject, example, names)]


def distinct(calls: list[Call]) -> list[Call]:
    """Evaluation alone, where a model does the same in training: no need to look twice."""
    if len(calls) == 1:
        return calls
    evaluation, training = calls
    state = training.args[1]
    same = compare(training.f(*training.args), {"output": evaluation.f(*evaluation.args), "state": state}, exact=True)
    return [evaluation] if same is None else calls


Body: TypeAlias = Callable[[Subject, tuple[Any, ...], Tensor], str]
"""A check: of a subject, its example and a key. It returns what was compared, in a phrase."""


def examine(check: str, body: Body, subject: Subject, example: tuple[Any, ...], key: Tensor | None) -> str:
    """Run a check; where it fails, again on fewer rows, and raise for the fewest."""
    key = random.key(0) if key is None else key
    try:
        return body(subject, _copied(example), key)
    except CheckError as found:
        error, note = _smallest(found, body, subject, example, key)
        raise CheckError(
            f"check_{check}: {error}{note} Replay with {replay(key)}.",
            check=check,
            leaf=error.leaf,
            index=error.index,
            submodule=error.submodule,
        ) from error.__cause__


def _smallest(
    error: CheckError, body: Body, subject: Subject, example: tuple[Any, ...], key: Tensor
) -> tuple[CheckError, str]:
    """The failure of the fewest first rows, and a sentence that says how many."""
    rows = _rows(example)
    size = 1
    while size < rows:
        try:
            body(subject, _copied(example, size), key)
        except CheckError as smaller:
            return smaller, f" Already with the first {'row' if size == 1 else f'{size} rows'} of {rows}."
        except Exception:
            pass  # a batch that the subject does not take proves nothing
        size *= 2
    return error, ""


def _rows(example: tuple[Any, ...]) -> int:
    """The first size of all tensors, where they have one in common; else 0."""
    sizes = {leaf.shape[0] for leaf in tree.leaves(example) if isinstance(leaf, Tensor) and leaf.ndim}
    return sizes.pop() if len(sizes) == 1 else 0


def _copied(example: tuple[Any, ...], rows: int | None = None) -> tuple[Any, ...]:
    """Copies, or copies of the first rows: what is checked may write into them."""

    def copied(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        part = leaf.detach()[:rows] if leaf.ndim and rows else leaf.detach()
        return _laid_out_like(part, part)

    copies: tuple[Any, ...] = tree.map(copied, example)
    return copies


def variants(call: Call, n: int) -> list[tuple[Any, ...]]:
    """The arguments, and `n - 1` others of the same kind.

    Numbers are moved along their tensor and made smaller, those of an argument or parameter change sign in every second
    variant; where the function refuses these, they are made smaller only. Keys are folded.
    """
    found = [call.args]
    for i in range(1, n):
        bold = _variant(call, i, bold=True)
        try:
            call.f(*bold)
            found.append(bold)
        except Exception:
            found.append(_variant(call, i, bold=False))
    return found


def _variant(call: Call, i: int, bold: bool) -> tuple[Any, ...]:
    def vary(name: str, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if name == "key":
            return random.fold_in(leaf, i)
        moved = leaf.flatten().roll(i).reshape(leaf.shape) if bold and leaf.numel() else leaf
        sign = -1 if bold and i % 2 and name != "state" else 1
        scaled = moved * (sign * (1 - i / 32)) if leaf.is_floating_point() or leaf.is_complex() else moved
        return _laid_out_like(leaf, scaled)

    return tuple(tree.map(lambda leaf, n=name: vary(n, leaf), value) for name, value in call.named().items())


def _laid_out_like(leaf: Tensor, value: Tensor) -> Tensor:
    """A copy of a value with the strides of a leaf, unless elements of the leaf share their memory."""
    if any(stride == 0 and size > 1 for stride, size in zip(leaf.stride(), leaf.shape, strict=True)):
        return value.clone()
    return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device=leaf.device).copy_(value)

"""`check_pure`: the result depends on the arguments alone, and nothing else changes."""

from contextlib import suppress
from typing import Any

from torch import Tensor

from funcnet import tree
from funcnet.testing.agreement import agree, inside, locate
from funcnet.testing.failures import CheckError, compare
from funcnet.testing.memory import remembers
from funcnet.testing.subjects import Call, Subject, cases, examine, is_model, model_of, variants
from funcnet.testing.watch import Watch, content, generators

__all__ = ["check_pure"]


def check_pure(subject: Subject, *example: Any, key: Tensor | None = None) -> str:
    """Hold that a function's result depends on its arguments alone, and that a call changes nothing.

    It is called twice with the same arguments, then with others, then with the first again; all results of the same
    arguments agree to the bit. The arguments keep their bits, versions and structure; the global generators of torch,
    numpy and Python stay where they were; nothing that the code can reach (globals it mentions, closures, default
    arguments, class attributes, objects) becomes another. A model's module may not remember either: its result on a
    copy that was used before is that on a fresh one.

    Args:
        subject: a function, a `Model`, a built module or a module's class; models are checked in both modes.
        *example: what it is called with.
        key: what parameters and draws are made from. Default `random.key(0)`.

    Returns:
        What was compared, in a phrase.

    Raises:
        CheckError: naming the tensor, global or attribute, and the submodule.

    >>> import torch
    >>> check_pure(torch.sin, torch.ones(3))
    '4 calls'
    >>> try:
    ...     check_pure(torch.Tensor.neg_, torch.ones(3))
    ... except CheckError as error:
    ...     print(str(error)[:61])
    check_pure: neg_ writes into its arguments: leaf 'argument 0'
    """
    return examine("pure", _pure, subject, example, key)


def _pure(subject: Subject, example: tuple[Any, ...], key: Tensor) -> str:
    watch = Watch(_roots(subject, key))  # before the first call, which is the one that fills a cache
    calls = cases(subject, example, key)
    for call in calls:
        _check_call(call, watch)
    return f"{4 * len(calls)} calls"


def _roots(subject: Subject, key: Tensor) -> dict[str, Any]:
    """Where the watched objects hang: a function itself, the classes of a model's submodules."""
    if not is_model(subject):
        return {"": subject}
    model, _, params, state = model_of(subject, key)
    return {path: type(module) for path, module in model.bind(params, state).named_modules()}


def _check_call(call: Call, watch: Watch) -> None:
    arguments, states = _Arguments(call), generators()
    first = _run(call, arguments)
    other = variants(call, 2)[1]
    with suppress(Exception):  # even these may be beyond what the function takes
        call.f(*other)
    _run(call, arguments)
    after = generators()
    for name in states:
        if states[name] != after[name]:
            submodule = locate(call, generators)
            raise CheckError(
                f"{call.title} moves {name}{inside(submodule)}, so a call depends on those before it. Draw from a key "
                f"(funcnet.random), or with torch's own functions inside the module, which draw from the call's key.",
                submodule=submodule,
            )
    changed = watch.change()
    if changed is not None:
        owner, path, how = changed
        raise CheckError(
            f"{call.title} changes {path}{inside(owner)}, which is none of its arguments: it {how}. Pass it in and "
            f"return the new value; in a module keep it in a buffer, which comes back as new state.",
            submodule=owner or None,
        )
    memory = remembers(call, other) if call.case is not None else None
    if memory is not None and memory[0]:
        raise memory[1]
    agree(call, _plainly(call), lambda f: first if f is call.f else f(*call.args), _SECOND, exact=True)
    agree(call, _plainly(call, other), lambda f: first if f is call.f else f(*call.args), _AFTER, exact=True)
    if memory is not None:  # it is kept where the watch does not reach
        raise memory[1]


_SECOND = "in a second call with the same arguments", "in the first"
_AFTER = "after a call with other arguments", "before it"


def _plainly(call: Call, before: tuple[Any, ...] | None = None) -> Any:
    def way(f: Any) -> Any:
        if before is not None:
            with suppress(Exception):
                f(*before)
        return f(*call.args)

    return way


class _Arguments:
    """The arguments as they were."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.leaves = dict(tree.leaves_with_path(call.named()))
        self.copies = {path: _copy(leaf) for path, leaf in self.leaves.items()}
        self.versions = self._versions(self.leaves)
        self.others = Watch({"": [leaf for leaf in self.leaves.values() if not isinstance(leaf, Tensor)]})

    @staticmethod
    def _versions(leaves: dict[str, Any]) -> dict[str, int]:
        return {p: leaf._version for p, leaf in leaves.items() if isinstance(leaf, Tensor) and not leaf.is_inference()}

    def written(self) -> str | None:
        """The path of a leaf that is no longer what it was."""
        now = dict(tree.leaves_with_path(self.call.named()))
        for path in [*self.leaves, *now]:
            if path not in now or path not in self.leaves or now[path] is not self.leaves[path]:
                return path
        changed = self.others.change()
        if changed is not None:
            return changed[1]
        versions = self._versions(now)
        for path, copy in self.copies.items():
            wrote = path in versions and versions[path] != self.versions[path]
            if wrote or (isinstance(copy, Tensor) and compare(now[path], copy, exact=True) is not None):
                return path
        return None


def _copy(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _run(call: Call, arguments: _Arguments) -> Any:
    """The result, copied so that no later call can write into it."""
    cause: Exception | None = None
    try:
        result = call.f(*call.args)
    except Exception as error:
        cause = error
    path = arguments.written()
    if path is not None:
        leaf = arguments.leaves.get(path)
        submodule = None
        if isinstance(leaf, Tensor):
            submodule = locate(call, lambda: (leaf._version, content(leaf)))
        raise CheckError(
            f"{call.title} writes into its arguments{inside(submodule)}: leaf {path!r} is no longer what it was. "
            f"Compute out of place (x * 0.5 instead of x.mul_(0.5) or x.data), or return the new value.",
            leaf=path,
            submodule=submodule,
        ) from cause
    if cause is not None:
        raise cause
    return tree.map(_copy, result)

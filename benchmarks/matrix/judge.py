"""Whether a cell is right: its numbers against the slow reference's, its arguments as they were."""

import math
import signal
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor

from funcnet import tree
from matrix.cells import CELLS, NESTS, Case, case_of, nested
from matrix.kits import Funcnet, Kit, Raw, Slow
from matrix.layers import Layer

# The largest error of a leaf, relative to its largest element (or to a thousandth of the largest of all leaves, since a
# gradient that is zero is noise). Different orders of summation in float64 and bfloat16.
TOLERANCE = {torch.float64: 1e-8, torch.bfloat16: 4e-2}

# Columns whose cells are differentiated more than once, and return no new state.
DEEP = {"jvp", "hvp", "reverse over reverse", "jit hvp", "nested"}

DRAWS = 6  # nestings for each layer
SECONDS = 180  # that a cell may take


# Cells that mean nothing, and why.
INAPPLICABLE = {
    ("AdaptiveLogSoftmaxWithLoss", "autocast"): "torch's own module fails there: index_copy_ of two dtypes",
}


class Verdict(NamedTuple):
    """The outcome of one cell: "right", "wrong" (other numbers, or a changed argument), "draws", "error" or "n/a".

    "draws" is for raw torch alone: other numbers where the layer draws, so that the same seed may mean other draws than
    those of the loop, and nothing can be shown.
    """

    kind: str
    error: float  # the largest relative error of a leaf, as in TOLERANCE; NaN where nothing could be compared
    detail: str
    seconds: float


class WrongError(AssertionError):
    """A result that is not the reference's."""


class DrawsError(WrongError):
    """One that drew from the global generator."""


def judge(layer: Layer, column: str, raw: bool, backend: str, draws: int = DRAWS) -> Verdict:
    """Run one cell with funcnet or with raw torch, and with the slow kit."""
    if reason := INAPPLICABLE.get((layer.name, column)):
        return Verdict("n/a", math.nan, reason, 0.0)
    start = time.perf_counter()
    kind, error, detail = "right", math.nan, ""
    try:
        with _limited(SECONDS), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            case = case_of(layer, torch.float32 if column == "autocast" else torch.float64)
            if column == "nested":
                error = _nestings(layer, case, raw, backend, draws)
            else:
                error = _compared(lambda kit: CELLS[column](kit, case), case, raw, backend, column)
    except WrongError as wrong:
        kind, detail = "draws" if isinstance(wrong, DrawsError) else "wrong", "; ".join([str(wrong), *_notes(wrong)])
    except Exception as exception:
        kind, detail = "error", "; ".join([f"{type(exception).__name__}: {exception}", *_notes(exception)])
    finally:
        if raw:
            torch.compiler.reset()  # what is compiled for one row is of no use to another
    return Verdict(kind, error, detail, time.perf_counter() - start)


def _notes(exception: BaseException) -> list[str]:
    return getattr(exception, "__notes__", [])


def _nestings(layer: Layer, case: Case, raw: bool, backend: str, draws: int) -> float:
    """Random nestings of two verbs, in jit or not; the composition is a note on what it raises."""
    errors: list[float] = []
    raised: list[Exception] = []
    verbs = st.sampled_from(sorted(NESTS))

    @seed(zlib.crc32(layer.name.encode()))
    @settings(max_examples=draws, deadline=None, database=None, phases=[Phase.generate])
    @given(verbs, verbs, st.booleans())
    def run(outer: str, inner: str, jitted: bool) -> None:
        try:
            if not raised:
                errors.append(
                    _compared(lambda kit: nested(kit, case, outer, inner, jitted), case, raw, backend, "nested")
                )
        except Exception as exception:  # kept, since Hypothesis would run it again
            exception.add_note(f"in jit({outer}({inner}(f)))" if jitted else f"in {outer}({inner}(f))")
            raised.append(exception)

    run()
    if raised:
        raise raised[0]
    return max(errors)


def _compared(cell: Callable[[Kit], Any], case: Case, raw: bool, backend: str, column: str) -> float:
    kit = Raw(case.module, backend) if raw else Funcnet(case.module, backend)
    slow = Slow(case.module if raw else case.reference, keyed=not raw, deep=column in DEEP)
    torch.manual_seed(0)  # all that there is to draw from without keys
    generator = torch.get_rng_state()
    try:
        want = tree.map(Tensor.detach, cell(slow))
    except Exception as error:
        raise WrongError(f"no reference: {type(error).__name__}: {error}") from error
    drew = not torch.equal(generator, torch.get_rng_state())
    before = [leaf.clone() for leaf in tree.leaves(case[2:])]
    torch.manual_seed(0)
    got = cell(kit)
    if not raw and not torch.equal(generator, torch.get_rng_state()):
        raise WrongError("the global generator moved")
    if not all(map(torch.equal, before, tree.leaves(case[2:]))):
        raise WrongError("the call changed its arguments")
    if column == "pure call" and not _identical(got["train"], got["again"]):
        raise WrongError("the same call twice gives different results")
    tolerance = TOLERANCE[torch.bfloat16 if column == "autocast" else torch.float64]
    try:
        return compare(got, want, tolerance)
    except WrongError as wrong:
        raise DrawsError(str(wrong)) if drew else wrong  # noqa: B904 - the same error, by its right name


def compare(got: Any, want: Any, tolerance: float) -> float:
    """The largest relative error, or `WrongError` with the leaf that it is in."""
    tree.check_like(got, want, what="the result", against="the reference", dtype=True)
    pairs = list(zip(tree.leaves_with_path(got), tree.leaves(want), strict=True))
    largest = max((_magnitude(b) for _, b in pairs), default=0.0)
    if not 0 < largest < math.inf:
        raise WrongError(f"no reference: its largest element is {largest}")
    worst = 0.0
    for (path, a), b in pairs:
        if not b.is_floating_point() or not b.numel():
            if not torch.equal(a, b):
                raise WrongError(
                    f"{path}: {a.flatten()[:4].tolist()} where the reference has {b.flatten()[:4].tolist()}"
                )
            continue
        a, b = a.detach().double(), b.double()
        off = torch.where(a == b, 0.0, a - b)  # what is infinite in both is equal
        error = float(off.abs().max()) / max(_magnitude(b), 1e-3 * largest)
        if not error <= tolerance:
            raise WrongError(f"{path}: relative error {error:.1e}")
        worst = max(worst, error)
    return worst


def _magnitude(x: Tensor) -> float:
    """The largest finite element of a floating tensor; infinite where there is a NaN."""
    if not x.is_floating_point() or not x.numel():
        return 0.0
    return math.inf if x.isnan().any() else float(torch.where(x.isinf(), 0.0, x).abs().max())


def _identical(a: Any, b: Any) -> bool:
    return all(map(torch.equal, tree.leaves(a), tree.leaves(b)))


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def late(*_: Any) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds, 5)  # again and again, since a weak reference's callback swallows it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

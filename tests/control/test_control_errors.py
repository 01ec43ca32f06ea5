"""What the loops and branches refuse, in eager mode and while tracing alike, and in which words."""

import pytest
import torch

from funcnet import jit
from funcnet.control import cond, fori_loop, scan, while_loop

X, XS = torch.ones(3), torch.arange(12.0).reshape(4, 3)
SEEN: list = []
same = lambda c, x: (c, None)  # noqa: E731


def shorter(c, x):
    return {"a": c["a"]}, None


BOTH = {
    "dtype": (
        lambda: scan(lambda c, x: ({"h": c["h"], "n": c["n"] + x.double()}, None), {"h": X, "n": torch.tensor(0.0)}, X),
        TypeError,
        r"Leaf 'n' was float32 of shape \(\) and became float64 of shape \(\)\. Start with one of torch\.float64, or "
        r"in <lambda> write \.to\(torch\.float32\)",
    ),
    "shape": (
        lambda: scan(lambda c, x: (c + x, None), torch.tensor(0.0), XS),
        TypeError,
        r"Its only leaf was float32 of shape \(\) and became float32 of shape \(3,\)\. Start with one of shape \(3,\)",
    ),
    "number of a larger kind": (
        lambda: scan(lambda c, x: (2.5, None), 0, XS),
        TypeError,
        r"was int64 of shape \(\) and became a float\. Start with one of torch\.float32",
    ),
    "structure": (
        lambda: scan(shorter, {"a": X, "b": X}, XS),
        TypeError,
        r"what shorter returned does not match the carry that it was given: 1 missing.\n.*'b' is missing",
    ),
    "container": (
        lambda: scan(lambda c, x: (list(c), None), (X, X), XS),
        TypeError,
        "is a list, not a tuple",
    ),
    "no pair": (lambda: scan(lambda c, x: c, X, XS), TypeError, r"for a pair \(carry, y\), and it returned float32"),
    "triple": (lambda: scan(lambda c, x: (c, c, c), X, XS), TypeError, "returned a tuple of 3"),
    "string in the carry": (
        lambda: scan(same, {"a": X, "mode": "s"}, XS),
        TypeError,
        "the first carry of scan is a tree of tensors and numbers, not a str at 'mode'. Let the function close over",
    ),
    "string comes out": (
        lambda: scan(lambda c, x: ({"a": "s"}, None), {"a": X}, XS),
        TypeError,
        r"Leaf 'a' was float32 of shape \(3,\) and became a str",
    ),
    "string in y": (lambda: scan(lambda c, x: (c, {"k": "s"}), X, XS), TypeError, "the y of <lambda> .* a str at 'k'"),
    "another y": (
        lambda: scan(lambda c, x: (c + 1, {"a": x} if len(SEEN.append(c) or SEEN) % 2 else {"b": x}), 0, XS, unroll=4),
        TypeError,
        r"(?s)scan needs from <lambda> a y of one kind in every step, of one structure: .* 'a' is missing",
    ),
    "lengths": (lambda: scan(same, X, {"a": XS, "b": XS[:2]}), ValueError, "'a' has 4, and 'b' has 2 on its first"),
    "length": (lambda: scan(same, X, XS, length=3), ValueError, "length=3, and xs has 4 steps"),
    "no length": (lambda: scan(same, X), TypeError, "or length=, the number of steps"),
    "no int": (lambda: scan(same, X, length=2.5), TypeError, "an int of at least 0, and got 2.5"),
    "scalar xs": (
        lambda: scan(same, X, {"a": XS, "b": torch.tensor(1.0)}),
        TypeError,
        r"not float32 of shape \(\) at 'b', which has none",
    ),
    "unroll": (lambda: scan(same, X, XS, unroll=0), TypeError, "unroll as a bool or an int of at least 1, and got 0"),
    "predicate of floats": (
        lambda: while_loop(torch.sum, lambda c: c, X),
        TypeError,
        r"a result of sum that is a bool or a boolean tensor of shape \(\), and got float32 of shape \(\). Write a",
    ),
    "predicate of many": (
        lambda: while_loop(lambda c: c > 0, lambda c: c, X),
        TypeError,
        r"and got bool of shape \(3,\). Write .all\(\) or .any\(\)",
    ),
    "carry of while": (
        lambda: while_loop(lambda c: c["n"] < 3, lambda c: {"n": c["n"] + 1.0}, {"n": 0}),
        TypeError,
        r"while_loop needs .* Leaf 'n' was int64 of shape \(\) and became float32",
    ),
    "carry of fori": (
        lambda: fori_loop(0, 3, lambda i, c: c + i / 2, 0),
        TypeError,
        r"fori_loop needs from <lambda> a carry .* was int64 .* became float32",
    ),
    "carry of fori between tensors": (
        lambda: fori_loop(0, torch.tensor(3), lambda i, c: c + i / 2, 0),
        TypeError,
        r"fori_loop needs from <lambda> a carry .* was int64 .* became float32",
    ),
    "bound": (lambda: fori_loop(0.5, 3, lambda i, c: c, X), TypeError, r"shape \(\) for bounds, and lower is a float"),
    "unroll between tensors": (
        lambda: fori_loop(0, torch.tensor(3), lambda i, c: c, X, unroll=2),
        ValueError,
        "so leave unroll out",
    ),
    "predicate of cond": (
        lambda: cond(X.sum(), torch.sin, torch.cos, X),
        TypeError,
        r"cond needs a predicate that is a bool or a boolean tensor of shape \(\), and got float32",
    ),
    "operand of cond": (
        lambda: cond(True, torch.sin, torch.cos, "s"),
        TypeError,
        "the operands of cond .* a str at '0'",
    ),
}


@pytest.mark.parametrize("how", ["eager", "traced"])
@pytest.mark.parametrize("name", BOTH)
def test_refused_in_the_same_words(name, how):
    SEEN.clear()
    f, kind, match = BOTH[name]
    with pytest.raises(kind, match=match):
        f() if how == "eager" else jit(lambda x: (x, f()), backend="eager")(X)


def differing(f, g):
    return lambda x: cond(x.sum() > 0, f, g, x)


@pytest.mark.parametrize(
    ("f", "match"),
    [
        (differing(lambda x: {"a": x}, lambda x: {"b": x}), r"results of one kind .*\n.*'a' is missing"),
        (
            differing(lambda x: {"a": x}, lambda x: {"a": x.double()}),
            r"Leaf 'a' is float32 of shape \(3,\) in one and float64 of shape \(3,\) in the other. .*to\(torch.float32",
        ),
        (differing(lambda x: x, torch.sum), r"In sum reduce, index or expand it"),
        (differing(lambda x: None, torch.sum), "of one structure"),
    ],
)
def test_branches_that_differ(f, match):
    with pytest.raises(TypeError, match=match):
        jit(f, backend="eager")(X)
    # In eager mode one function is run, unless vmap maps the predicate.
    f(X)
    with pytest.raises(TypeError, match=match):
        torch.func.vmap(f)(XS)

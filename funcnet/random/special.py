"""Special functions whose last bits matter: the inverse of the error function."""

import torch
from torch import Tensor

from funcnet import _compat

__all__ = ["erfinv"]

_CHUNK = 16384  # elements that torch handles in one thread, so that no pass waits for another core

# Giles, "Approximating the erfinv function", GPU Computing Gems Jade Edition, 2012, table 5: w under 5, and above.
_CENTRE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
    -0.00125372503, -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
    -0.0076224613, 0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip


# Giles, the same, table 7: w under 6.25, under 16, and above.
_CENTRE_64 = (
    -3.6444120640178196996e-21, -1.685059138182016589e-19, 1.2858480715256400167e-18, 1.115787767802518096e-17,
    -1.333171662854620906e-16, 2.0972767875968561637e-17, 6.6376381343583238325e-15, -4.0545662729752068639e-14,
    -8.1519341976054721522e-14, 2.6335093153082322977e-12, -1.2975133253453532498e-11, -5.4154120542946279317e-11,
    1.051212273321532285e-09, -4.1126339803469836976e-09, -2.9070369957882005086e-08, 4.2347877827932403518e-07,
    -1.3654692000834678645e-06, -1.3882523362786468719e-05, 0.0001867342080340571352, -0.00074070253416626697512,
    -0.0060336708714301490533, 0.24015818242558961693, 1.6536545626831027356,
)  # fmt: skip
_MIDDLE_64 = (
    2.2137376921775787049e-09, 9.0756561938885390979e-08, -2.7517406297064545428e-07, 1.8239629214389227755e-08,
    1.5027403968909827627e-06, -4.013867526981545969e-06, 2.9234449089955446044e-06, 1.2475304481671778723e-05,
    -4.7318229009055733981e-05, 6.8284851459573175448e-05, 2.4031110387097893999e-05, -0.0003550375203628474796,
    0.00095328937973738049703, -0.0016882755560235047313, 0.0024914420961078508066, -0.0037512085075692412107,
    0.005370914553590063617, 1.0052589676941592334, 3.0838856104922207635,
)  # fmt: skip
_TAIL_64 = (
    -2.7109920616438573243e-11, -2.5556418169965252055e-10, 1.5076572693500548083e-09, -3.7894654401267369937e-09,
    7.6157012080783393804e-09, -1.4960026627149240478e-08, 2.9147953450901080826e-08, -6.7711997758452339498e-08,
    2.2900482228026654717e-07, -9.9298272942317002539e-07, 4.5260625972231537039e-06, -1.9681778105531670567e-05,
    7.5995277030017761139e-05, -0.00021503011930044477347, -0.00013871931833623122026, 1.0103004648645343977,
    4.8499064014085844221,
)  # fmt: skip


def _horner(coefficients: tuple[float, ...], v: Tensor) -> Tensor:
    p = torch.full_like(v, coefficients[0])
    for c in coefficients[1:]:
        p = c + p * v
    return p


def _erfinv_64(x: Tensor) -> Tensor:
    w = -torch.log1p(-x * x)
    centre, tail = w < 6.25, w >= 16.0
    # The unused side of a `where` must stay finite too, or its gradient is a NaN.
    root = torch.sqrt(torch.where(centre | w.isinf(), 6.25, w))
    middle = torch.where(tail, _horner(_TAIL_64, root - 5.0), _horner(_MIDDLE_64, root - 3.25))
    p = torch.where(centre, _horner(_CENTRE_64, torch.where(centre, w, 3.125) - 3.125), middle)
    # Detached, since the infinity of the unused side would be a NaN in the derivative.
    return torch.where(x.abs() == 1.0, x.detach() * torch.inf, p * x)


def erfinv(x: Tensor) -> Tensor:
    """The inverse error function, `erf(erfinv(x)) == x`, with the values that jax has to a few ulp.

    Giles's polynomials in `w = -log(1 - x**2)`, those of single precision for float32 and narrower types. torch's own
    `erfinv` is 500 ulp off in the tails of float64.
    """
    if x.dtype == torch.float64:
        return _erfinv_64(x)
    y = x.to(torch.float32)
    if _compat.plain() and y.device.type == "cpu" and not y.requires_grad:
        return _erfinv_in_chunks(y).to(x.dtype)
    return _erfinv_32(y).to(x.dtype)


def _erfinv_in_chunks(y: Tensor) -> Tensor:
    """The same operations on parts that stay in the cache, the tail's polynomial where the tail is."""
    out = torch.empty(y.numel(), dtype=y.dtype, device=y.device)
    for part, p in zip(torch.split(y.reshape(-1), _CHUNK), torch.split(out, _CHUNK), strict=True):
        w = (part * part).neg_().log1p_().neg_()
        v = w - 2.5
        torch.mul(v, _CENTRE[0], out=p).add_(_CENTRE[1])
        for c in _CENTRE[2:]:
            p.mul_(v).add_(c)
        p.mul_(part)
        tail = (w >= 5.0).nonzero().squeeze(1)
        p[tail] = _erfinv_32(part[tail])
    return out.reshape(y.shape)


def _either(first: Tensor, a: float, b: float, like: Tensor) -> Tensor:
    """`torch.where` of two numbers in the dtype of `like`; of numbers alone torch makes the default dtype."""
    if torch.get_default_dtype() == like.dtype:
        return torch.where(first, a, b)
    return torch.where(first, like.new_full((), a), b)


def _erfinv_32(y: Tensor) -> Tensor:
    w = -torch.log1p(-y * y)
    centre = w < 5.0
    # The unused side of a `where` must stay finite too, or its gradient is a NaN.
    v = torch.where(centre, w - 2.5, torch.sqrt(torch.where(centre, 5.0, w)) - 3.0)
    p = _either(centre, _CENTRE[0], _TAIL[0], y)
    for a, b in zip(_CENTRE[1:], _TAIL[1:], strict=True):
        p = _either(centre, a, b, y) + p * v
    edge = y.abs() == 1.0
    return torch.where(edge, y.detach() * torch.inf, p * y)

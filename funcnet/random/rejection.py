"""Rejection sampling with a bounded number of rounds, so that it can be traced."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import vmap

from funcnet import _compat
from funcnet.random.keys import split_words

__all__ = ["first_accepted"]


def first_accepted(key: Tensor, rounds: int, propose: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """For each element the first accepted of `rounds` proposals, each from a key of its own.

    `propose(key)` gives values and whether each is accepted. Traced or batched, all rounds are drawn at once and one
    is chosen; eagerly, rounds are drawn until every element has one. Both give the same numbers. An element that no
    round accepts keeps its first proposal, so `rounds` must make that rarer than anyone can see.
    """
    keys = split_words(key, (rounds,))
    value, done = propose(keys[0])
    if _compat.readable(done):
        for k in keys[1:]:
            if bool(done.all()):
                break
            other, accepted = propose(k)
            value = torch.where(done | ~accepted, value, other)
            done = done | accepted
        return value
    values, accepted = vmap(propose)(keys)
    first = torch.argmax(accepted.to(torch.int32), dim=0, keepdim=True)
    return torch.gather(values, 0, first).squeeze(0)

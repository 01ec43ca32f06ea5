"""Keys and distributions, with jax.random's names, arguments and bits."""

from funcnet.random.continuous import normal as normal
from funcnet.random.keys import fold_in as fold_in
from funcnet.random.keys import key as key
from funcnet.random.keys import split as split
from funcnet.random.reuse import KeyReuseError as KeyReuseError
from funcnet.random.reuse import check_reuse as check_reuse
from funcnet.random.uniform import bits as bits
from funcnet.random.uniform import uniform as uniform

__all__ = ["KeyReuseError", "bits", "check_reuse", "fold_in", "key", "normal", "split", "uniform"]

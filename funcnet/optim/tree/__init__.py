"""Arithmetic on trees, and values found by name in the states of optimizers, under the names of `optax.tree`.

The rooms: `arithmetic` works leaf by leaf, `whole` tells one thing of all leaves, `keys` draws, and `states` finds and
replaces. The trees of one call must have one structure, or `TreeMismatchError` is raised; within a leaf torch
broadcasts. Everything is pure, and runs under grad, vmap and jit. `funcnet.tree` holds what is not Optax's.
"""

from ...tree import ones_like as ones_like
from ...tree import size as size
from ...tree import zeros_like as zeros_like
from ..moments import bias_correction as bias_correction
from ..moments import update_infinity_moment as update_infinity_moment
from ..moments import update_moment as update_moment
from ..moments import update_moment_per_elem_norm as update_moment_per_elem_norm
from .arithmetic import add as add
from .arithmetic import add_scale as add_scale
from .arithmetic import batch_shape as batch_shape
from .arithmetic import cast as cast
from .arithmetic import cast_like as cast_like
from .arithmetic import clip as clip
from .arithmetic import conj as conj
from .arithmetic import div as div
from .arithmetic import full_like as full_like
from .arithmetic import mul as mul
from .arithmetic import real as real
from .arithmetic import scale as scale
from .arithmetic import sub as sub
from .arithmetic import where as where
from .keys import random_like as random_like
from .keys import split_key_like as split_key_like
from .keys import unwrap_random_key_data as unwrap_random_key_data
from .params import map_params as map_params
from .states import get as get
from .states import get_all_with_path as get_all_with_path
from .states import set as set
from .whole import allclose as allclose
from .whole import dtype as dtype
from .whole import max as max
from .whole import min as min
from .whole import norm as norm
from .whole import sum as sum
from .whole import vdot as vdot

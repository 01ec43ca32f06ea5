"""funcnet: purely functional PyTorch."""

from importlib.metadata import version as _version

from funcnet import checkpoint as checkpoint
from funcnet import counts as counts
from funcnet import data as data
from funcnet import losses as losses
from funcnet import optim as optim
from funcnet import random as random
from funcnet import tree as tree
from funcnet.control import associative_scan as associative_scan
from funcnet.control import cond as cond
from funcnet.control import custom_jvp as custom_jvp
from funcnet.control import custom_vjp as custom_vjp
from funcnet.control import fori_loop as fori_loop
from funcnet.control import remat as remat
from funcnet.control import scan as scan
from funcnet.control import while_loop as while_loop
from funcnet.jit import CompilerMissingError as CompilerMissingError
from funcnet.jit import DonatedTensorError as DonatedTensorError
from funcnet.jit import RecompileError as RecompileError
from funcnet.jit import jit as jit
from funcnet.model import Model as Model
from funcnet.model import Params as Params
from funcnet.model import State as State
from funcnet.pure import MissingKeyError as MissingKeyError
from funcnet.stacking import stack_blocks as stack_blocks
from funcnet.stacking import stacked as stacked
from funcnet.stacking import unstack_blocks as unstack_blocks
from funcnet.train import TrainState as TrainState
from funcnet.train import fit as fit
from funcnet.train import make_epoch as make_epoch
from funcnet.train import make_eval as make_eval
from funcnet.train import make_step as make_step
from funcnet.transforms import ensemble as ensemble
from funcnet.transforms import grad as grad
from funcnet.transforms import hessian as hessian
from funcnet.transforms import hvp as hvp
from funcnet.transforms import jacfwd as jacfwd
from funcnet.transforms import jacrev as jacrev
from funcnet.transforms import jvp as jvp
from funcnet.transforms import linearize as linearize
from funcnet.transforms import per_example_grad as per_example_grad
from funcnet.transforms import stop_gradient as stop_gradient
from funcnet.transforms import value_and_grad as value_and_grad
from funcnet.transforms import vjp as vjp
from funcnet.transforms import vmap as vmap

__version__ = _version("funcnet")

"""torch.func's transforms over any pytree, with JAX's result order and errors that name the leaf."""

from funcnet.transforms.batching import ensemble as ensemble
from funcnet.transforms.batching import per_example_grad as per_example_grad
from funcnet.transforms.gradients import grad as grad
from funcnet.transforms.gradients import stop_gradient as stop_gradient
from funcnet.transforms.gradients import value_and_grad as value_and_grad
from funcnet.transforms.jacobians import hessian as hessian
from funcnet.transforms.jacobians import hvp as hvp
from funcnet.transforms.jacobians import jacfwd as jacfwd
from funcnet.transforms.jacobians import jacrev as jacrev
from funcnet.transforms.jacobians import jvp as jvp
from funcnet.transforms.jacobians import linearize as linearize
from funcnet.transforms.jacobians import vjp as vjp
from funcnet.transforms.mapping import vmap as vmap

"""The only rooms that may name a private torch API.

Each entry says what it is for, the versions it was checked on, and what happens where it is missing.
"""

from funcnet._compat.compiler import compile_graph as compile_graph
from funcnet._compat.compiler import cpp_compiler_problem as cpp_compiler_problem
from funcnet._compat.compiler import is_data_dependent as is_data_dependent
from funcnet._compat.compiler import same_storage as same_storage
from funcnet._compat.compiler import trace as trace
from funcnet._compat.kernels import batch_norm_statistics as batch_norm_statistics
from funcnet._compat.kernels import foreach_add as foreach_add
from funcnet._compat.kernels import foreach_add_ as foreach_add_
from funcnet._compat.kernels import foreach_mul as foreach_mul
from funcnet._compat.kernels import fused_adam as fused_adam
from funcnet._compat.kernels import gamma_grad as gamma_grad
from funcnet._compat.kernels import samplers as samplers
from funcnet._compat.levels import autocast_state as autocast_state
from funcnet._compat.levels import batched as batched
from funcnet._compat.levels import no_function_modes as no_function_modes
from funcnet._compat.levels import plain as plain
from funcnet._compat.levels import readable as readable
from funcnet._compat.levels import tracing as tracing
from funcnet._compat.levels import transform_active as transform_active
from funcnet._compat.lowering import KEEP as KEEP
from funcnet._compat.lowering import lower_elementwise as lower_elementwise
from funcnet._compat.lowering import meet_inductor as meet_inductor
from funcnet._compat.trees import register_dataclass as register_dataclass
from funcnet._compat.trees import tree_children as tree_children
from funcnet._compat.trees import tree_node as tree_node

"""The only rooms that may name a private torch API.

Each entry says what it is for, the versions it was checked on, and what happens where it is missing.
"""

from funcnet._compat.attention import batch_attention as batch_attention
from funcnet._compat.attention import is_fused_attention as is_fused_attention
from funcnet._compat.compiler import compile_graph as compile_graph
from funcnet._compat.compiler import cpp_compiler_problem as cpp_compiler_problem
from funcnet._compat.compiler import is_data_dependent as is_data_dependent
from funcnet._compat.compiler import same_storage as same_storage
from funcnet._compat.compiler import trace as trace
from funcnet._compat.derivatives import Asked as Asked
from funcnet._compat.derivatives import asked_of as asked_of
from funcnet._compat.derivatives import differentiated_again as differentiated_again
from funcnet._compat.flops import FlopCounter as FlopCounter
from funcnet._compat.flops import fake_mode as fake_mode
from funcnet._compat.flops import storage_of as storage_of
from funcnet._compat.kernels import batch_norm_statistics as batch_norm_statistics
from funcnet._compat.kernels import foreach_add as foreach_add
from funcnet._compat.kernels import foreach_add_ as foreach_add_
from funcnet._compat.kernels import foreach_mul as foreach_mul
from funcnet._compat.kernels import fused_adam as fused_adam
from funcnet._compat.kernels import gamma_grad as gamma_grad
from funcnet._compat.kernels import samplers as samplers
from funcnet._compat.levels import autocast_state as autocast_state
from funcnet._compat.levels import bare_forward_mode as bare_forward_mode
from funcnet._compat.levels import batched as batched
from funcnet._compat.levels import enter_autocast as enter_autocast
from funcnet._compat.levels import function_modes as function_modes
from funcnet._compat.levels import has_tangent as has_tangent
from funcnet._compat.levels import level as level
from funcnet._compat.levels import level_of as level_of
from funcnet._compat.levels import no_function_modes as no_function_modes
from funcnet._compat.levels import plain as plain
from funcnet._compat.levels import readable as readable
from funcnet._compat.levels import tracing as tracing
from funcnet._compat.levels import transform_active as transform_active
from funcnet._compat.levels import unwrap_dead as unwrap_dead
from funcnet._compat.loops import bare as bare
from funcnet._compat.loops import cond_node as cond_node
from funcnet._compat.loops import graphing as graphing
from funcnet._compat.loops import mapped as mapped
from funcnet._compat.loops import scan_node as scan_node
from funcnet._compat.loops import sketch as sketch
from funcnet._compat.loops import sketched as sketched
from funcnet._compat.loops import while_node as while_node
from funcnet._compat.losses import AdaptiveOutput as AdaptiveOutput
from funcnet._compat.lowering import KEEP as KEEP
from funcnet._compat.lowering import LATER as LATER
from funcnet._compat.lowering import lower_elementwise as lower_elementwise
from funcnet._compat.lowering import meet_inductor as meet_inductor
from funcnet._compat.packing import pack_padded as pack_padded
from funcnet._compat.packing import pad_packed as pad_packed
from funcnet._compat.packing import untraced as untraced
from funcnet._compat.trees import register_dataclass as register_dataclass
from funcnet._compat.trees import tree_children as tree_children
from funcnet._compat.trees import tree_node as tree_node

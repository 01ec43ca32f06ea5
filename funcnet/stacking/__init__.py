"""Equal blocks as one: their tensors stacked, their code run by one scan."""

from funcnet.stacking.names import stack_blocks as stack_blocks
from funcnet.stacking.names import unstack_blocks as unstack_blocks
from funcnet.stacking.stacked import stacked as stacked

"""The compiled edge: one `jit` around the whole step."""

from funcnet.jit.compiler import CompilerMissingError as CompilerMissingError
from funcnet.jit.donation import DonatedTensorError as DonatedTensorError
from funcnet.jit.function import Jitted as Jitted
from funcnet.jit.function import RecompileError as RecompileError
from funcnet.jit.function import jit as jit

"""How torch.nn is made pure.

A `Skeleton` is a module without storage, whose tensors are put in for one call. A `PureMode` is the torch function
mode around that call: one table from torch function to pure replacement, a room for each kind of impurity.
"""

from funcnet.pure.mode import MissingKeyError as MissingKeyError
from funcnet.pure.mode import PureMode as PureMode
from funcnet.pure.skeleton import Body as Body
from funcnet.pure.skeleton import Skeleton as Skeleton

"""Data as trees of tensors, in an order drawn from a key."""

from funcnet.data import augment as augment
from funcnet.data.rows import batches as batches
from funcnet.data.rows import split as split

"""Data as trees of tensors, in an order drawn from a key, and what reads it from files."""

from funcnet.data import augment as augment
from funcnet.data.ahead import prefetch as prefetch
from funcnet.data.dataset import Dataset as Dataset
from funcnet.data.dataset import Statistics as Statistics
from funcnet.data.dataset import check_labels as check_labels
from funcnet.data.dataset import statistics as statistics
from funcnet.data.errors import DataError as DataError
from funcnet.data.idx import read_idx as read_idx
from funcnet.data.images import Images as Images
from funcnet.data.images import read_images as read_images
from funcnet.data.loaders import loader as loader
from funcnet.data.rows import batches as batches
from funcnet.data.rows import order as order
from funcnet.data.rows import split as split
from funcnet.data.sources import load as load
from funcnet.data.streams import Position as Position
from funcnet.data.streams import stream as stream
from funcnet.data.tables import Table as Table
from funcnet.data.tables import read_table as read_table
from funcnet.data.text import Window as Window
from funcnet.data.text import chunks as chunks
from funcnet.data.text import decode as decode
from funcnet.data.text import encode as encode
from funcnet.data.text import read_text as read_text
from funcnet.data.text import vocabulary as vocabulary
from funcnet.data.text import windows as windows

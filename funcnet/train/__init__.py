"""The training shell: the state of a run, the pure step, and a small loop around it."""

from funcnet.train.loop import fit as fit
from funcnet.train.precision import Precision as Precision
from funcnet.train.scaler import LossScale as LossScale
from funcnet.train.step import TrainState as TrainState
from funcnet.train.step import make_step as make_step
from funcnet.train.stopping import EarlyStopping as EarlyStopping
from funcnet.train.stopping import StoppingState as StoppingState

"""Training: the state of a run, the pure step, an epoch as one function, evaluation, and the loop around them."""

from funcnet.train.curves import draw_curves as draw_curves
from funcnet.train.curves import save_figure as save_figure
from funcnet.train.epoch import make_epoch as make_epoch
from funcnet.train.evaluation import make_eval as make_eval
from funcnet.train.failures import NonFiniteError as NonFiniteError
from funcnet.train.logs import ConsoleLog as ConsoleLog
from funcnet.train.logs import CSVLog as CSVLog
from funcnet.train.logs import JSONLinesLog as JSONLinesLog
from funcnet.train.logs import Log as Log
from funcnet.train.logs import TensorBoardLog as TensorBoardLog
from funcnet.train.loop import Moment as Moment
from funcnet.train.loop import fit as fit
from funcnet.train.precision import Precision as Precision
from funcnet.train.scaler import LossScale as LossScale
from funcnet.train.state import TrainState as TrainState
from funcnet.train.step import make_step as make_step
from funcnet.train.stopping import EarlyStopping as EarlyStopping
from funcnet.train.stopping import StoppingState as StoppingState
from funcnet.train.tasks import weighted as weighted

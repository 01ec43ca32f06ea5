"""Fair timing of steps: compiled against eager, against torch.nn, against jax. `funcnet bench` is its shell."""

from funcnet.bench.environment import environment as environment
from funcnet.bench.limits import Limits as Limits
from funcnet.bench.limits import limits as limits
from funcnet.bench.memory import peak_of as peak_of
from funcnet.bench.race import race as race
from funcnet.bench.result import Cell as Cell
from funcnet.bench.result import Report as Report
from funcnet.bench.result import ReportError as ReportError
from funcnet.bench.result import Result as Result
from funcnet.bench.subject import Running as Running
from funcnet.bench.subject import Subject as Subject
from funcnet.bench.subject import Way as Way
from funcnet.bench.timing import Ratio as Ratio
from funcnet.bench.timing import Timing as Timing
from funcnet.bench.timing import compare as compare

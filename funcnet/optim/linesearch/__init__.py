"""Learning rates found by trying: each step asks the function for its values along the direction."""

from .backtracking import ScaleByBacktrackingLinesearchState as ScaleByBacktrackingLinesearchState
from .backtracking import scale_by_backtracking_linesearch as scale_by_backtracking_linesearch
from .line import value_and_grad_from_state as value_and_grad_from_state
from .zoom import ScaleByZoomLinesearchState as ScaleByZoomLinesearchState
from .zoom import ZoomLinesearchInfo as ZoomLinesearchInfo
from .zoom import scale_by_zoom_linesearch as scale_by_zoom_linesearch

"""What goes wrong in training, and why: learning rates, gradients, time, memory, values that are not finite."""

from funcnet.diagnostics.rates import RateSweep as RateSweep
from funcnet.diagnostics.rates import draw_rates as draw_rates
from funcnet.diagnostics.rates import find_rate as find_rate
from funcnet.diagnostics.rates import try_rates as try_rates

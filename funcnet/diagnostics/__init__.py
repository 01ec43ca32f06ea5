"""What goes wrong in training, and why: learning rates, gradients, time, memory, values that are not finite."""

from funcnet.diagnostics.anomaly import AnomalyError as AnomalyError
from funcnet.diagnostics.anomaly import anomaly as anomaly
from funcnet.diagnostics.flow import Flow as Flow
from funcnet.diagnostics.flow import FlowNumbers as FlowNumbers
from funcnet.diagnostics.flow import FlowRow as FlowRow
from funcnet.diagnostics.flow import draw_flow as draw_flow
from funcnet.diagnostics.flow import flow_numbers as flow_numbers
from funcnet.diagnostics.flow import gradient_flow as gradient_flow
from funcnet.diagnostics.memory import MemoryReport as MemoryReport
from funcnet.diagnostics.memory import PhaseMemory as PhaseMemory
from funcnet.diagnostics.memory import memory_report as memory_report
from funcnet.diagnostics.profiling import Operation as Operation
from funcnet.diagnostics.profiling import Profile as Profile
from funcnet.diagnostics.profiling import profile as profile
from funcnet.diagnostics.rates import RateSweep as RateSweep
from funcnet.diagnostics.rates import find_rate as find_rate
from funcnet.diagnostics.rates import try_rates as try_rates
from funcnet.diagnostics.rates_picture import draw_rates as draw_rates

"""Every transformation and schedule: an entry inherits all contracts, and its room a file of optax's numbers."""

import cases_contrib
import cases_first
import cases_moments
import cases_schedules
import cases_wrappers

ROOMS = {"first": cases_first, "contrib": cases_contrib, "moments": cases_moments, "wrappers": cases_wrappers}
OPTIMIZERS = [case for room in ROOMS.values() for case in room.OPTIMIZERS]
LINKS = [case for room in ROOMS.values() for case in room.LINKS]
SCHEDULES = cases_schedules.SCHEDULES

"""Training from the command line: `funcnet train`, `resume`, `evaluate`, `predict` and `find-lr`.

The rooms: `config` is everything a run is made of, `grammar` how names with options are written. `rows`, `networks`,
`models`, `optimizers`, `schedules`, `augmenting` and `task` make of names what they name, and `plan` all of them
together. `folder` is a run's folder. `training`, `evaluating`, `predicting` and `finding` are the commands, and `shell`
their options.
"""

from funcnet.runs.config import Config as Config
from funcnet.runs.errors import RunError as RunError

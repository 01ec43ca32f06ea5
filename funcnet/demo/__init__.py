"""The demo: two classifiers of handwritten digits, trained, measured, drawn and saved.

The rooms: `data` loads the digits, `models` says what is trained, `training` trains it, `speed` times one step three
ways, `pictures` draws, and `run` tells the story.
"""

from funcnet.demo.run import Settings as Settings
from funcnet.demo.run import run as run

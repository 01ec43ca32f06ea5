"""What a command answers: the exit status of its work, and one line where it fails, in the words of the shell."""

from collections.abc import Callable

from funcnet.shell import FAILED, INTERRUPTED, UNABLE, stop

__all__ = ["answering"]

# How messages of the library name what has another name here.
_NAMES = {
    "skip_bad=True": "--skip-bad",
    "download=True": "--download",
    'make_step(..., metrics=["grad_norms"])': "--metrics grad_norms",
    "clip (clip=1.0)": "clip (--clip 1)",
    "skip_nonfinite=True, and check_finite=False here": "--skip-nonfinite",
    ", and see tree.paths(params) for the names": "",
    "split found no name": "no name",
    "give a size to resize to": "give a size to resize to with --size",
    ": write load_state_dict(": ": name the file in it (",
}
# The same for what uses a model that was trained, and cannot leave anything out or learn more characters.
_NAMES_OF_USE = {
    ", or leave such rows out with skip_bad=True": "",
    ", or leave such pictures out with skip_bad=True": "",
    ". Make the vocabulary of all text: data.vocabulary(text).": ", which the model was trained on.",
    **_NAMES,
}


def answering(
    work: Callable[[], int],
    *,
    less_memory: str,
    interrupted: Callable[[], str] = lambda: "interrupted.",
    trained: bool = False,
) -> int:
    """The exit status of some work; what it raises is told in one line.

    Args:
        work: what a command does.
        less_memory: what to write where the memory was not enough.
        interrupted: what to say of an interrupted one.
        trained: whether it uses a model that was trained before, and so lacks the options of training.
    """
    from funcnet.checkpoint import CheckpointError
    from funcnet.data import DataError
    from funcnet.jit import CompilerMissingError
    from funcnet.runs.errors import RunError, out_of_memory
    from funcnet.specs import SpecError
    from funcnet.train import NonFiniteError

    try:
        return work()
    except (RunError, DataError, SpecError, CheckpointError, CompilerMissingError) as error:
        return stop(_said(str(error), trained), UNABLE)
    except OSError as error:
        about = f"{error.filename}: " if error.filename else ""
        return stop(f"{about}{error.strerror or error}", UNABLE)
    except NonFiniteError as error:
        return stop(_said(str(error), trained), FAILED)
    except KeyboardInterrupt:
        return stop(interrupted(), INTERRUPTED)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        return stop(f"the memory is not enough: {less_memory}{f' ({reason})' if reason else ''}.", UNABLE)


def _said(message: str, trained: bool) -> str:
    for name, option in (_NAMES_OF_USE if trained else _NAMES).items():
        message = message.replace(name, option)
    return message

"""The command line: `python -m bench run | report | …`. Every command is one Python call.

The commands stand in `run.py`, `show.py` and `data.py`; what they share, in `console.py`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence

from bench.cli import data, relate, run, show
from bench.errors import WINDOWS, UserError, nearest, printable

__all__ = ["main"]

TOP = """\
Compare prompt-tuning methods for CLIP: one harness, every recipe stored with its result, one report.

  python -m bench run       train and test a grid of methods, shots and seeds
  python -m bench report    tables and figures from what was run
  python -m bench list      suites, tasks, methods, backbones
  python -m bench explain   a method: what is learned, its formula, its parameters
  python -m bench words     the words nearest to what a finished cell has learned
  python -m bench predict   what a finished cell sees in your own images
  python -m bench predictions  what a finished cell predicted for its test images: accuracy per class, confusion
  python -m bench relate    how tasks relate: contexts swapped, likeness, gains of joint training
  python -m bench records   many records as one file, and back
  python -m bench merge     the records of several folders as one
  python -m bench stability  how steady trainings are: the loss's curvature, and what rounding does to accuracies
  python -m bench data      check which data sets are on disk, fetch the rest, write few-shot draws as files
  python -m bench cache     the stored image features

Every command has a --help with examples; start with `python -m bench run --help`.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 some cells failed, 2 a user's mistake, 130 Ctrl-C."""
    # Before torch is loaded: threads that wait in a spin take a busy machine's time from those that work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that a console or pipe cannot take becomes "?"
            stream.reconfigure(errors="replace")
    if argv is None:
        _find_here()
    code = 0
    try:
        with _one_line_warnings():
            code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()  # here, where a closed pipe is caught
        return code
    except UserError as error:
        return _say(f"error: {error}", 2)
    except KeyboardInterrupt as stop:
        detail = f": {stop}, and kept" if str(stop) else ""
        return _say(f"\nstopped{detail}. Type the same command to go on.", 130)
    except OSError as error:
        if _nobody_reads(error):
            return code
        # A folder that cannot be written, a full disk: nothing a traceback would explain.
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"error: {where}{error.strerror or error}", 2)
    except UnicodeEncodeError as error:
        if sys.getfilesystemencoding() == "utf-8":
            raise
        known = f"this system's encoding of file names, {sys.getfilesystemencoding()}, lacks some of its characters"
        return _say(f"error: {error.object!a}: {known}; set PYTHONUTF8=1, or a locale with UTF-8", 2)
    finally:
        _let_go()


def _find_here() -> None:
    """The installed script finds methods in the current folder, as `python -m bench` does.

    Last on the path, where a file of the folder cannot stand for a library's module.
    """
    here = os.getcwd()
    if not getattr(sys.flags, "safe_path", False) and not {"", here} & set(sys.path):
        sys.path.append(here)


def _say(text: str, code: int) -> int:
    with contextlib.suppress(OSError):  # nobody reads it
        print(printable(text), file=sys.stderr)
    return code


def _nobody_reads(error: OSError) -> bool:
    """Whether the reader of our output (head, less) has seen enough; Windows has another error for it."""
    windows = WINDOWS and error.errno == errno.EINVAL and error.filename is None
    return isinstance(error, BrokenPipeError) or windows


def _let_go() -> None:
    """Redirect streams that nobody reads: Python flushes them once more at exit, and would complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # ValueError: closed; AttributeError: a process without a console
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Warnings as errors are shown: without the place in the code that a user can do nothing about."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: printable(f"warning: {message}\n")
    try:
        yield
    finally:
        warnings.formatwarning = before


def _dispatch(argv: list[str]) -> int:
    commands = {
        "run": run.run,
        "stability": run.stability,
        "report": show.report_command,
        "list": show.listing_command,
        "explain": show.explain_command,
        "words": show.words_command,
        "predict": show.predict_command,
        "predictions": show.predictions_command,
        "relate": relate.relate_command,
        "records": show.records_command,
        "merge": show.merge_command,
        "data": data.dispatch,
        "cache": show.cache_command,
    }
    if not argv or argv[0] in ("-h", "--help"):
        print(TOP, end="")
        return 0
    if argv[0] == "--version":
        from bench import __version__

        print(__version__)
        return 0
    if argv[0] not in commands:
        raise UserError(f"unknown command {argv[0]!r}; {nearest(argv[0], commands)}")
    return commands[argv[0]](argv[1:])

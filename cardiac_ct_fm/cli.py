"""The command line ``cardiac-ct-fm``: starts a command; errors become one line and an exit code.

Exit codes: 0 done, 1 failure, 2 wrong usage, 3 part of a batch failed, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from cardiac_ct_fm import __version__
from cardiac_ct_fm.errors import CardiacCTError

PROGRAM = "cardiac-ct-fm"
FAILURE, INTERRUPTED, TERMINATED = 1, 130, 143
WHOLE = "What was finished is complete; nothing is half-written."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; those of the process when None.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--version"]:  # before anything is imported: it answers at once
        print(f"{PROGRAM} {__version__}")  # noqa: T201 - this is the command's result
        return 0
    from cardiac_ct_fm import process

    if "--debug" in given[:1]:
        os.environ[process.DEBUG_VARIABLE] = "1"
    process.set_up_log()
    process.keep_freed_memory()
    process.unwind_on_sigterm()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a letter shows another one instead
            stream.reconfigure(errors="replace")
    try:
        code = _run(given)
        sys.stdout.flush()
        return code
    except CardiacCTError as error:
        return _say(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _say(f"Interrupted. {WHOLE}", INTERRUPTED)
    except process.Terminated:
        return _say(f"Terminated. {WHOLE}", TERMINATED)
    except BrokenPipeError:  # the reader of our output has gone (head, less); Python would complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except MemoryError:
        return _say("There is not enough memory for this. Close other programs, or use --quality fast.", FAILURE)
    except Exception as error:
        if process.debugging():
            raise
        text = f"Unexpected {type(error).__name__}: {error}"
        return _say(f"{text} (run {PROGRAM} --debug {' '.join(given)} for the traceback, and report it)", FAILURE)


def _run(arguments: Sequence[str]) -> int:
    """Parse and run; wrong usage becomes one line as well."""
    import typer

    from cardiac_ct_fm.commands.app import build_app

    try:
        command = typer.main.get_command(build_app())
        result = command.main(list(arguments), prog_name=PROGRAM, standalone_mode=False)
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else PROGRAM
        text = error.format_message().replace("Value error, ", "")  # the parser's own word, not the user's
        return _say(f"{text} Try: {path} --help", error.exit_code)
    if result == INTERRUPTED:  # typer turns Ctrl-C into this
        raise KeyboardInterrupt
    return int(result or 0)


def _say(text: str, code: int) -> int:
    """One line on stderr, and the exit code."""
    sys.stderr.write(f"{PROGRAM}: {' '.join(text.split())}\n")
    return code

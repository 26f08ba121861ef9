"""The `kama` command: parses, calls one function, and turns what goes wrong into a line and an exit code.

Only names and options are imported here; what a command needs to run is imported when it runs.
"""

from __future__ import annotations

import itertools
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from kama import __version__
from kama.commands import bench, check, demo, groups, messages, monitor, send, serve, settings, tail, token, trace
from kama.commands.common import AsJson, print_json, report
from kama.errors import ExitCode, KamaError

app = typer.Typer(
    name="kama",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"kama {__version__}")
        raise typer.Exit


@app.callback(
    epilog="""Examples:

  kama serve

  kama token U123456

  kama send hello --from U123456 --to U654321"""
)
def kama(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of what goes wrong")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version")
    ] = False,
) -> None:
    """A real-time chat node you can see into."""


@app.command()
def version(as_json: AsJson = False) -> None:
    """Print the version of kama, and of the Python it runs on."""
    python = ".".join(map(str, sys.version_info[:3]))
    if as_json:
        print_json({"kama": __version__, "python": python})
    else:
        print(f"kama {__version__} (Python {python})")


app.command()(serve.serve)
app.add_typer(token.app, name="token")
app.command()(send.send)
app.command()(messages.history)
app.add_typer(groups.app, name="group")
app.command()(messages.kick)
app.command()(monitor.monitor)
app.command()(tail.tail)
app.command()(trace.trace)
app.add_typer(settings.app, name="config")
app.command()(check.check)
app.command()(bench.bench)
app.command()(demo.demo)


def run(arguments: Sequence[str]) -> int:
    """One command from its arguments to its exit code."""
    try:
        _check_utf8(arguments)
        outcome = get_command(app).main(list(arguments), prog_name="kama", standalone_mode=False)
        sys.stdout.flush()
        return outcome if isinstance(outcome, int) else ExitCode.OK
    except (BrokenPipeError, SystemExit) as ending:
        # Whoever read our output has seen enough. Typer makes an exit of it that would count as a failure.
        if isinstance(ending, SystemExit) and not isinstance(ending.__context__, BrokenPipeError):
            raise
        _drop_what_cannot_be_written()
        return ExitCode.OK
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except Exception as error:
        if help_text := _asked_for_help(error):
            print(help_text, file=sys.stderr)
            return ExitCode.USAGE
        if _is_debug(arguments):
            traceback.print_exc()
        failure = _explained(error)
        report(failure, as_json=_is_json(arguments))
        _drop_what_cannot_be_written()
        return failure.exit_code


def _is_json(arguments: Sequence[str]) -> bool:
    """Known also where the arguments cannot be parsed. What stands behind `--` is text."""
    options = itertools.takewhile(lambda argument: argument != "--", arguments)
    return any(option in ("--json", "-j") for option in options)


def _is_debug(arguments: Sequence[str]) -> bool:
    """An option of `kama` itself stands before its command."""
    return "--debug" in itertools.takewhile(lambda argument: argument.startswith("-"), arguments)


def _check_utf8(arguments: Sequence[str]) -> None:
    """Nothing of ours, no frame and no setting, can hold other bytes."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise _Usage(f"expected arguments in UTF-8, got {os.fsencode(argument[:24])!r}") from None


def _drop_what_cannot_be_written() -> None:
    """Python flushes at exit, and would complain of a closed pipe or a full disk once more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _asked_for_help(error: Exception) -> str | None:
    """`kama group` alone: Typer tells it as an error whose message is the help."""
    context = getattr(error, "ctx", None)
    if isinstance(error, typer.TyperException) and context is not None and error.message == context.get_help():
        return error.message
    return None


def _explained(error: Exception) -> KamaError:
    if isinstance(error, KamaError):
        return error
    if isinstance(error, typer.TyperException):
        # Typer checks with pydantic, whose words these are.
        words = error.format_message().replace("Value error, ", "").replace("Input should be", "expected")
        usage = _Usage(words)
        context = getattr(error, "ctx", None)
        usage.hint = f"{context.command_path if context else 'kama'} --help"
        return usage
    return KamaError(f"{type(error).__name__}: {error}", hint="kama --debug … shows where")


class _Usage(KamaError):
    exit_code = ExitCode.USAGE


def _open_streams() -> None:
    """What whoever started us has closed: there is nothing to read, and what is written is dropped.

    Left as they are, their numbers would go to the next files that are opened: a database, a socket.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def main() -> None:
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets its number instead of a traceback.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    # What is no UTF-8 is to be told where it is read: in some locales it would pass, and fail where it is sent.
    sys.stdin.reconfigure(encoding="utf-8", errors="strict")  # type: ignore[union-attr]
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()

"""The `kama` command: parses, calls one function, and turns what goes wrong into a line and an exit code.

Only names and options are imported here; what a command needs to run is imported when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from kama import __version__
from kama.commands import groups, messages, send, serve, settings, token
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
app.add_typer(settings.app, name="config")


def run(arguments: Sequence[str]) -> int:
    """One command from its arguments to its exit code."""
    as_json = "--json" in arguments or "-j" in arguments
    debug = "--debug" in arguments
    try:
        outcome = get_command(app).main(list(arguments), prog_name="kama", standalone_mode=False)
        sys.stdout.flush()
        return outcome if isinstance(outcome, int) else ExitCode.OK
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except Exception as error:
        if debug:
            raise
        failure = _explained(error)
        report(failure, as_json=as_json)
        return failure.exit_code


def _explained(error: Exception) -> KamaError:
    if isinstance(error, KamaError):
        return error
    if isinstance(error, typer.TyperException):
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        usage = _Usage(text.replace("Value error, ", ""))
        context = getattr(error, "ctx", None)
        usage.hint = f"{context.command_path if context else 'kama'} --help"
        return usage
    return KamaError(f"{type(error).__name__}: {error}", hint="kama --debug … shows where")


class _Usage(KamaError):
    exit_code = ExitCode.USAGE


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()

"""`kama monitor --web`: what each tab of the browser runs, and the server for them."""

from __future__ import annotations

from kama.commands.watching import Tokens
from kama.errors import SettingsError
from kama.monitor.options import MonitorOptions


def show_in_browser(options: MonitorOptions, tokens: Tokens, port: int) -> None:
    """Until Ctrl-C. Raises SettingsError where the packages for it are not installed."""
    try:
        from kama.tui.web import serve_in_browser
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"expected the package {error.name} for --web, got none", hint="pip install 'kama[web]'"
        ) from None
    serve_in_browser(arguments_for(options, tokens), port)


def arguments_for(options: MonitorOptions, tokens: Tokens) -> list[str]:
    """What `kama monitor` has to be given to show the same. A token that KAMA_TOKEN holds goes on in the environment:
    others can read arguments."""
    arguments = [part for url in options.servers for part in ("-s", url)]
    values = {
        "--interval": f"{options.interval_ms}ms",
        "--filter": options.filter,
        "--theme": options.theme,
        "--speed": str(options.speed),
        "--replay": options.replay,
        "--token-file": tokens.token_file,
        "--config": tokens.config_file,
        "--data-dir": tokens.data_dir,
    }
    arguments += [part for flag, value in values.items() if value for part in (flag, str(value))]
    flags = {
        "--all": options.follow_all,
        "--admin": tokens.role == "admin",
        "--read-only": options.read_only,
        "--ascii": options.ascii,
    }
    return arguments + [flag for flag, is_set in flags.items() if is_set]

"""What the README says of settings and commands is what there is."""

import re
from pathlib import Path

import pytest

from kama.cli import run
from kama.settings import setting_fields

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


def rows() -> list[str]:
    """The settings as the README's table has them."""
    nothing = (None, '""', "[]")
    return [
        f"| `{item.setting}` | {'–' if item.default in nothing else f'`{item.default}`'} | {item.description} |"
        for item in setting_fields()
    ]


def test_the_table_of_settings_is_the_one_of_the_code() -> None:
    assert [line for line in README.splitlines() if re.match(r"\| `[a-z]+\.[a-z_]+` \|", line)] == rows()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`kama ([a-z]+)", README))))
def test_a_command_that_it_names_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert f"kama {command}" in capsys.readouterr().out

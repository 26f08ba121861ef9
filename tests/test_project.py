"""The project keeps its own rules: nothing of a developer's machine in it, one version, modules that load."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

import kama

ROOT = Path(__file__).resolve().parent.parent

MACHINE_PATH = re.compile(r"(?<![\w.])/(work|farm|root)/")

# Put together here, so that this file does not contain what it looks for.
REGISTRY_HOST = re.compile(
    "|".join(
        r"\.".join(parts)
        for parts in (
            ("py" + "pi", "org"),
            ("python" + "hosted", "org"),
            ("npm" + "js", "(org|com)"),
            ("crates", "io"),
            ("ruby" + "gems", "org"),
            ("maven", "org"),
            ("maven", "apache", "org"),
            ("proxy", "golang", "org"),
        )
    ),
    re.IGNORECASE,
)


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip(f"needs a git checkout: {listed.stderr.strip() or listed.returncode}")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in tracked_files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if pattern.search(line)
    ]


def test_no_tracked_file_names_a_path_of_a_developers_machine() -> None:
    assert lines_with(MACHINE_PATH) == []


def test_no_tracked_file_names_the_host_of_a_package_registry() -> None:
    assert lines_with(REGISTRY_HOST) == []


@pytest.mark.parametrize("folder", ["work", "farm", "root"])
@pytest.mark.parametrize("text", ["/{}/notes", "see '/{}/a/b'", "cd /{}/"])
def test_the_rule_about_paths_sees_one(text: str, folder: str) -> None:
    assert MACHINE_PATH.search(text.format(folder))


@pytest.mark.parametrize("text", ["/network/a", "./work/a", "a/root/b", "work/life"])
def test_the_rule_about_paths_lets_other_text_pass(text: str) -> None:
    assert not MACHINE_PATH.search(text)


def test_the_package_and_its_metadata_name_the_same_version() -> None:
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert metadata["project"]["version"] == kama.__version__


def tangled() -> list[str]:
    """The modules that import each other in a circle, at their top or later, and what lies between two circles."""
    graph = grimp.build_graph("kama", exclude_type_checking_imports=True, cache_dir=None)
    for name in list(graph.modules):
        # A package is imported before what is in it.
        if (package := name.rpartition(".")[0]) in graph.modules:
            graph.add_import(importer=name, imported=package)
    left = set(graph.modules)
    while loose := {
        name
        for name in left
        if not graph.find_modules_directly_imported_by(name) & left
        or not graph.find_modules_that_directly_import(name) & left
    }:
        left -= loose
    return sorted(left)


def test_every_module_can_be_the_first_one_imported() -> None:
    # A circle shows only to whoever imports the wrong one of its modules first: each in a process of its own.
    broken = {}
    for name in tangled():
        done = subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, text=True, check=False)
        if done.returncode:
            broken[name] = done.stderr
    assert broken == {}


def test_the_licence_is_the_one_that_the_metadata_names() -> None:
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text())
    licence = (ROOT / "LICENSE").read_text()
    assert metadata["project"]["license"] == "Apache-2.0"
    assert "Apache License" in licence
    assert "Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


@pytest.mark.parametrize("name", [".ci/run", "scripts/services", "scripts/test"])
def test_a_script_can_be_run_by_its_name(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)
    assert (ROOT / name).read_text().startswith("#!/usr/bin/env ")


def test_make_alone_lists_every_command_that_it_explains() -> None:
    listed = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("serve", "test", "check", "format", "clean"):
        assert re.search(rf"^  make {target} +\S", listed.stdout, re.MULTILINE), target

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from pathlib import Path

import pytest

import holdfast

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MAX_LINES = 400
MAX_FUNCTION_LINES = 52
MAX_TEST_NAME = 60
MAX_FIRST_LINE = 80
BANNED_NAMES = {"utils.py", "common.py", "helpers.py", "misc.py"}


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=ids)
def test_files_stay_small_with_banned_names_refused(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES
    assert path.name not in BANNED_NAMES


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_functions_stay_short(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < MAX_FUNCTION_LINES, node.name


@pytest.mark.parametrize("path", TESTS, ids=ids)
def test_names_of_tests_are_short(path: Path) -> None:
    names = re.findall(r"def (test_\w+)", path.read_text())
    assert [name for name in names if len(name) > MAX_TEST_NAME] == []


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_first_lines_of_docstrings_are_short(path: Path) -> None:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, documented)]
    lines = [(ast.get_docstring(node) or "").partition("\n")[0] for node in nodes]
    assert [line for line in lines if len(line) > MAX_FIRST_LINE] == []


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_modules_have_docstring_and_all(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    defines = any(isinstance(n, ast.FunctionDef | ast.ClassDef) for n in tree.body)
    names = {
        t.id
        for n in tree.body
        if isinstance(n, ast.Assign)
        for t in n.targets
        if isinstance(t, ast.Name)
    }
    assert not defines or "__all__" in names


def test_only_vllm_package_imports_the_engine() -> None:
    for path in SOURCES:
        package = path.relative_to(ROOT / "src" / "holdfast").parts[0]
        foreign = {"vllm": (), "compress": ("vllm",)}.get(package, ("vllm", "torch"))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            assert not any(name.split(".")[0] in foreign for name in names), path


def test_changelog_begins_with_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    headings = [line for line in lines if line.startswith("## ") and line != "## Unreleased"]
    assert headings[0] == f"## {project['version']}" == f"## {holdfast.__version__}"


def test_entry_points_resolve() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    targets = [*project["scripts"].values()]
    for group in project["entry-points"].values():
        targets += group.values()
    for target in targets:
        module, name = target.split(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_readme_names_every_command() -> None:
    from holdfast.cli.main import cli

    readme = (ROOT / "README.md").read_text()
    for command in cli.commands:
        assert f"holdfast {command}" in readme or f"make {command}" in readme, command

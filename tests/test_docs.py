"""Every Python block of the README, and every example in a docstring, runs."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import osculant

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
NEEDS = {
    "torch": "torch",
    "jax": "jax",
    "optax": "jax",
    "keras": "keras",
    "scipy": "scipy",
    "sklearn": "sklearn",
    "rich": "demo",
}


def modules():
    found = pkgutil.walk_packages(osculant.__path__, "osculant.")
    return [info.name for info in found if not info.name.endswith("__main__")]


def require(code):
    for name, extra in NEEDS.items():
        if re.search(rf"\b(import|from) {name}\b", code):
            pytest.importorskip(name, reason=f"the extra {extra!r} is not installed")


def test_readme_has_an_example_for_each_user():
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.split("\n")[0])
def test_block_of_the_readme_runs(code, capsys):
    require(code)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.strip()


def shell_commands():
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [part for block in blocks for part in re.split(r" && |\n", block.strip())]


def test_second_command_is_what_ci_runs():
    install, nox = (c for c in shell_commands() if re.search(r"\bnox$", c))
    assert f"{install} && {nox}" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("command", [c for c in shell_commands() if c.startswith("osculant ")])
def test_command_of_the_readme_runs(command, capsys, tmp_path):
    for name in ("cyclopts", "rich", "matplotlib", "sklearn"):
        pytest.importorskip(name, reason="the extra 'demo' is not installed")
    from osculant.cli import main

    _, name, *given = command.split()
    curves = tmp_path / "curves.png"
    short = {"demo": ["--budget", "20", "--output", str(curves)], "bench": ["--repeats", "1"]}
    assert main([name, *given, *short[name]]) == 0
    shown = capsys.readouterr().out
    if name == "demo":
        assert "NewtonKrylov" in shown and curves.stat().st_size
    else:
        assert "numpy" in shown and "vgv" in shown


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings(name):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(str(error))
    for test in doctest.DocTestFinder().find(module, name):
        require(test.docstring)
        doctest.DebugRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)

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
NEEDS = {"torch": "torch", "jax": "jax", "optax": "jax", "scipy": "scipy", "rich": "demo"}


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


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings(name):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(str(error))
    for test in doctest.DocTestFinder().find(module, name):
        require(test.docstring)
        doctest.DebugRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)

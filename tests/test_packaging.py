"""The package as it is installed: complete, light, and free of what does not belong."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("core", "backends", "adapters", "problems")
HEAVY = (
    *("torch", "jax", "cupy", "scipy", "sklearn", "matplotlib", "rich", "cyclopts", "optax"),
    "keras",
    "safetensors",
)


def config():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def sources():
    for folder in (*FOLDERS, "osculant"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not any(parent.is_symlink() for parent in path.parents):
                yield path


def test_every_folder_with_an_init_is_a_package():
    found = {
        ".".join(
            path.parent.relative_to(ROOT).parts
            if path.parent.relative_to(ROOT).parts[0] == "osculant"
            else ("osculant", *path.parent.relative_to(ROOT).parts)
        )
        for path in sources()
        if path.name == "__init__.py"
    }
    assert found == set(config()["tool"]["setuptools"]["packages"])


def test_links_make_the_checkout_look_like_the_installation():
    for folder in FOLDERS:
        link = ROOT / "osculant" / folder
        assert link.is_symlink() and link.resolve() == ROOT / folder
        mapped = config()["tool"]["setuptools"]["package-dir"][f"osculant.{folder}"]
        assert mapped == folder


@pytest.mark.parametrize("statement", ["import osculant", "import osculant.testing"])
def test_import_is_light(statement):
    code = f"import sys; {statement}; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "osculant" in loaded and not set(loaded) & set(HEAVY)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def test_core_imports_no_framework():
    allowed = {*sys.stdlib_module_names, "array_api_compat", "optree"}
    for path in sorted((ROOT / "core").rglob("*.py")):
        assert set(imports(path)) <= allowed, path.relative_to(ROOT)


def test_nothing_is_pickled_and_no_module_shadows_a_framework():
    for path in sources():
        assert not set(imports(path)) & {"pickle", "shelve", "dill", "cloudpickle"}, path
        assert path.stem not in {"numpy", *HEAVY}, path


def test_versions_agree():
    version = config()["project"]["version"]
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()

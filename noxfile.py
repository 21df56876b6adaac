"""Sessions: ``nox`` runs the default ones; ``nox -l`` lists them all."""

import os
import shutil
import subprocess

import nox

nox.needs_version = ">=2024.4.15"
# venv and pip: other installers do not see wheels that were put on the disk for pip to find.
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "types", "tests", "tests_numpy", "matrix", "demo"]

# A version that is not installed is skipped, and nox says so.
nox.options.error_on_missing_interpreters = False
if shutil.which("pyenv") and "PYENV_VERSION" not in os.environ:
    # pyenv's python3.12 only runs where 3.12 is selected: select all that are installed.
    versions = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True)
    installed = [name for name in versions.stdout.split() if name.startswith("3.")]
    os.environ["PYENV_VERSION"] = ":".join(reversed(installed))

TORCH = os.environ.get("OSCULANT_TORCH", "torch==2.13.0")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def install_everything(session: nox.Session) -> None:
    """Install the project with every backend that needs no accelerator."""
    session.install(TORCH)
    session.install("-e", ".[test,torch,jax,keras,scipy,checkpoint,demo]")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, imports, docstrings, formatting."""
    session.install("ruff==0.17.*")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Type-check the built wheel, as a user's type checker sees it."""
    session.install("mypy", "build")
    wheels = session.create_tmp()
    session.run("python", "-m", "build", "--wheel", "--outdir", wheels, ".", silent=True)
    (wheel,) = [name for name in os.listdir(wheels) if name.endswith(".whl")]
    session.install("--force-reinstall", os.path.join(wheels, wheel))
    config = os.path.abspath("pyproject.toml")
    os.remove(os.path.join(wheels, wheel))
    session.chdir(wheels)  # so that the checkout is not what is checked
    session.run("mypy", "--config-file", config, "-p", "osculant")


@nox.session
def tests(session: nox.Session) -> None:
    """The tests on every backend that is installed here."""
    install_everything(session)
    session.run("pytest", "-n", "2", *session.posargs, env=ONE_THREAD)


@nox.session(python=["3.11", "3.12", "3.13"])
def tests_numpy(session: nox.Session) -> None:
    """The tests with NumPy alone: what a plain ``pip install osculant`` gives."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "2", *session.posargs, env=ONE_THREAD)


@nox.session
def matrix(session: nox.Session) -> None:
    """The conformance matrix; fails if the support table in the README is not what it finds."""
    install_everything(session)
    session.run(
        "python", "-m", "osculant.testing", *(session.posargs or ["--check"]), env=ONE_THREAD
    )


@nox.session
def demo(session: nox.Session) -> None:
    """The main job on every backend."""
    install_everything(session)
    output = os.path.join(session.create_tmp(), "demo.png")
    arguments = session.posargs or ["--backend", "all", "--output", output]
    session.run("osculant", "demo", *arguments, env=ONE_THREAD)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; fails on a broken link or reference."""
    session.install("-e", ".[docs]")
    session.run("mkdocs", "build", "--strict", "--site-dir", session.create_tmp())

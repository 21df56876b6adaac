"""How the defaults of NewtonKrylov were calibrated: one option varied at a time.

For each setting the final full training loss of the digits network at equal cost, as a multiple of
the default's, by geometric mean over seeds: full batch, and batches of 256. No timing is involved.

    python benchmarks/newton_krylov.py [--budget 600] [--seeds 3]
"""

import argparse
import math
from dataclasses import replace

import numpy as np

import osculant
from osculant.problems import digits, mlp
from osculant.problems.datasets import batches

DEFAULT = osculant.NewtonKrylov()
VARIED = {
    "interval": [(0.05, 0.25), (0.05, 0.5), (0.05, 2.0), (0.0, 1.0), (0.2, 1.0)],
    "forcing": [0.02, 0.1, 0.5],
    "max_inner": [10, 40],
    "attempts": [4, 16],
    "global_gradient": ["full", "batch", "mean"],
    "decay": [0.5, 0.99],
    "negative_curvature": ["carry", "gradient"],
    "warm_start": [0.5, 0.95],
    "momentum": [True],
}
#: Options that belong together: those for networks with KFAC's blocks, from one to all.
BLOCKS = {"preconditioner": osculant.Kronecker()}
JOINED = [
    BLOCKS,
    BLOCKS | {"momentum": True, "global_gradient": "batch"},
    BLOCKS | {"momentum": True, "global_gradient": "batch", "max_inner": 1},
]


def final_loss(solver, size, seed, budget):
    problem, data = mlp([64, 32, 10], seed=seed), digits()
    oracle = osculant.oracle(model=problem.model, loss=problem.loss, params=problem.params)
    loader = [tuple(data.train)] if size is None else batches(data.train, size, seed=seed)
    solution = osculant.fit(oracle, problem.params, loader, solver=solver, budget=budget)
    return float(oracle.value(solution.state.x, *data.train))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--budget", type=float, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()

    def losses(solver, size):
        return [final_loss(solver, size, seed, arguments.budget) for seed in range(arguments.seeds)]

    sizes = {"full batch": None, "batches of 256": 256}
    reference = {name: losses(DEFAULT, size) for name, size in sizes.items()}
    means = {name: math.exp(np.mean(np.log(values))) for name, values in reference.items()}
    print("default:", ", ".join(f"{name} {mean:.2e}" for name, mean in means.items()))
    print(f"| options | {' | '.join(sizes)} |\n|---|---|---|")
    varied = [{option: value} for option, values in VARIED.items() for value in values]
    np.seterr(divide="ignore")  # a loss of 0 is one
    for options in [*varied, *JOINED]:
        solver = replace(DEFAULT, **options)
        if solver == DEFAULT:
            continue
        ratios = [
            np.exp(np.mean(np.log(losses(solver, size)) - np.log(reference[name])))
            for name, size in sizes.items()
        ]
        named = ", ".join(
            option if option == "preconditioner" else f"{option}={value}"
            for option, value in options.items()
        )
        print(f"| {named} | {' | '.join(f'{r:.2g}' for r in ratios)} |", flush=True)


if __name__ == "__main__":
    main()

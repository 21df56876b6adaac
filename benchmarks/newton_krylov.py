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
}


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
    options = parser.parse_args()

    def losses(solver, size):
        return [final_loss(solver, size, seed, options.budget) for seed in range(options.seeds)]

    sizes = {"full batch": None, "batches of 256": 256}
    reference = {name: losses(DEFAULT, size) for name, size in sizes.items()}
    means = {name: math.exp(np.mean(np.log(values))) for name, values in reference.items()}
    print("default:", ", ".join(f"{name} {mean:.2e}" for name, mean in means.items()))
    print(f"| option | value | {' | '.join(sizes)} |\n|---|---|---|---|")
    for option, settings in VARIED.items():
        for setting in settings:
            if setting == getattr(DEFAULT, option):
                continue
            solver = replace(DEFAULT, **{option: setting})
            ratios = [
                np.exp(np.mean(np.log(losses(solver, size)) - np.log(reference[name])))
                for name, size in sizes.items()
            ]
            print(
                f"| {option} | {setting} | {' | '.join(f'{r:.2g}' for r in ratios)} |", flush=True
            )


if __name__ == "__main__":
    main()

"""SecondOrderAdam against the best Adam of a grid, and how its one rate was calibrated.

Final loss of the digits network over all the training data, at equal gradient-equivalents, by
geometric mean over seeds. No timing is involved.

    python benchmarks/second_order_adam.py [--budget 600] [--seeds 3]
"""

import argparse
import math
from functools import partial

import numpy as np

import osculant
from osculant.problems import digits, mlp
from osculant.problems.datasets import batches

SIZES = {"full batch": None, "batches of 256": 256, "batches of 64": 64}
SOLVERS = {
    **{
        f"Adam, rate {rate:g}": osculant.Adam(learning_rate=rate)
        for rate in (0.003, 0.01, 0.03, 0.1, 0.3)
    },
    **{
        f"SecondOrderAdam, rate {rate:g}": osculant.SecondOrderAdam(rate=rate)
        for rate in (0.03, 0.05, 0.1)
    },
    "SecondOrderAdam, learning_rate 0.001": osculant.SecondOrderAdam(learning_rate=1e-3),
    "AdaptiveDescent": osculant.AdaptiveDescent(),
    "AdaptiveDescent, learning_rate 1": osculant.AdaptiveDescent(learning_rate=1.0),
}


def final_loss(solver, size, budget, seed):
    problem, data = mlp([64, 32, 10], seed=seed), digits()
    oracle = osculant.oracle(model=problem.model, loss=problem.loss, params=problem.params)
    loader = batches(data.train, size, seed=seed)
    solution = osculant.fit(oracle, problem.params, loader, solver=solver, budget=budget)
    return float(oracle.value(solution.state.x, *data.train))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--budget", type=float, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print(f"| solver | {' | '.join(SIZES)} |\n|---{'|---' * len(SIZES)}|")
    for name, solver in SOLVERS.items():
        means = []
        for size in SIZES.values():
            loss = partial(final_loss, solver, size, options.budget)
            means.append(math.exp(np.mean([math.log(loss(s)) for s in range(options.seeds)])))
        print(f"| {name} | {' | '.join(f'{mean:.2g}' for mean in means)} |", flush=True)


if __name__ == "__main__":
    main()

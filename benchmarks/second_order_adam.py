"""SecondOrderAdam against the best Adam of a grid, and how its options were calibrated.

Final loss of the digits network over all the training data, at equal gradient-equivalents, by
geometric mean over seeds; and of deeper networks in batches of 100 on MNIST, one seed. No timing is
involved.

    python benchmarks/second_order_adam.py [--budget 600] [--seeds 2] [--folder FOLDER]
"""

import argparse
import math
from functools import partial

import numpy as np
import optree

import osculant
from osculant.problems import autoencoder, digits, mlp, mnist, models
from osculant.problems.datasets import batches
from osculant.problems.networks import lenet5

AUTOENCODER = (784, 200, 50, 10)
SIZES = {"full batch": None, "batches of 256": 256, "batches of 64": 64}
SOLVERS = {
    **{
        f"Adam, rate {rate:g}": osculant.Adam(learning_rate=rate)
        for rate in (0.003, 0.01, 0.03, 0.1, 0.3)
    },
    **{
        f"SecondOrderAdam{''.join(f', {k} {v:g}' for k, v in options.items())}": (
            osculant.SecondOrderAdam(**options)
        )
        for options in (
            {},
            {"rate": 0.05},
            {"rate": 0.2},
            {"beta3": 0.9},
            {"beta3": 0.5},
            {"period": 1},
            {"period": 2},
            {"learning_rate": 3e-3},
            {"learning_rate": 1e-3},
        )
    },
    "AdaptiveDescent": osculant.AdaptiveDescent(),
    "AdaptiveDescent, learning_rate 1": osculant.AdaptiveDescent(learning_rate=1.0),
}
#: The rows of the deeper networks, and the networks.
LEARNING_RATES = (1e-3, 3e-3, 1e-2)
DEEP = {
    "LeNet-5": lenet5,
    "autoencoder, sparse": partial(autoencoder, AUTOENCODER, loss="squared-error"),
    "autoencoder, Glorot": partial(
        autoencoder, AUTOENCODER, loss="squared-error", initialise=models.glorot
    ),
}


def final_loss(solver, size, budget, seed):
    problem, data = mlp([64, 32, 10], seed=seed), digits()
    oracle = osculant.oracle(model=problem.model, loss=problem.loss, params=problem.params)
    loader = batches(data.train, size, seed=seed)
    solution = osculant.fit(oracle, problem.params, loader, solver=solver, budget=budget)
    return float(oracle.value(solution.state.x, *data.train))


def deep_loss(folder, make, solver, budget):
    """Return the final loss over all the data of a network on PyTorch, in float32."""
    backend, problem = osculant.backends.get("torch"), make(dtype=np.float32)
    images, labels = (backend.from_numpy(a) for a in mnist(folder, dtype=np.float32).train)
    data = (images, images if "autoencoder" in problem.name else labels)
    params = optree.tree_map(backend.from_numpy, problem.params)
    oracle = osculant.oracle(model=problem.model, loss=problem.loss, params=params)
    solution = osculant.fit(
        oracle, params, osculant.Batches(data, 100, seed=0), solver=solver, budget=budget
    )
    return float(oracle.value(solution.state.x, *data))


def deep_table(folder, budget):
    print(f"\n| solver | {' | '.join(DEEP)} |\n|---{'|---' * len(DEEP)}|")
    for solver in (osculant.Adam, osculant.SecondOrderAdam):
        for rate in LEARNING_RATES:
            losses = (
                deep_loss(folder, f, solver(learning_rate=rate), budget) for f in DEEP.values()
            )
            row = " | ".join(f"{loss:.3g}" for loss in losses)
            print(f"| {solver.__name__}, learning_rate {rate:g} | {row} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--budget", type=float, default=600)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--folder", help="where MNIST's test files are, for the deeper networks")
    options = parser.parse_args()
    print(f"| solver | {' | '.join(SIZES)} |\n|---{'|---' * len(SIZES)}|")
    for name, solver in SOLVERS.items():
        means = []
        for size in SIZES.values():
            loss = partial(final_loss, solver, size, options.budget)
            means.append(math.exp(np.mean([math.log(loss(s)) for s in range(options.seeds)])))
        print(f"| {name} | {' | '.join(f'{mean:.2g}' for mean in means)} |", flush=True)
    if options.folder:
        deep_table(options.folder, options.budget / 2)


if __name__ == "__main__":
    main()

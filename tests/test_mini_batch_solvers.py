"""Every solver for mini-batches: the same run on each backend, and from a file."""

from functools import cache

import numpy as np
import optree
import pytest

import osculant
from osculant import backends, norms
from osculant.core.checkpoint import named_leaves
from osculant.core.kronecker import Kronecker
from osculant.problems import mlp

SOLVERS = {
    "newton-krylov": osculant.NewtonKrylov(),
    "newton-krylov, carrying": osculant.NewtonKrylov(
        negative_curvature="carry", warm_start=0.9, global_gradient="batch"
    ),
    "newton-krylov, Kronecker": osculant.NewtonKrylov(
        preconditioner=Kronecker(factors_every=2), momentum=True, global_gradient="batch"
    ),
    "newton-summary": osculant.NewtonSummary(),
    "trust-region": osculant.TrustRegion(norm=norms.Adam()),
    "cubic-regularization": osculant.CubicRegularization(
        curvature="gauss-newton", norm=norms.RMSProp()
    ),
    "curveball": osculant.CurveBall(curvature="hessian", damping=1.0),
    "curveball, Kronecker": osculant.CurveBall(
        damping=0.1, preconditioner=Kronecker(factors_every=2), residual_at="line"
    ),
    "hessian-free": osculant.HessianFree(),
    "kfac": osculant.KFAC(damping=0.1, period=2),
    "shampoo": osculant.Shampoo(period=2),
    "second-order-adam": osculant.SecondOrderAdam(),
    "adaptive-descent": osculant.AdaptiveDescent(),
    "sgd": osculant.SGD(learning_rate=0.1, momentum=0.9),
    "adam": osculant.Adam(learning_rate=0.1),
    "adagrad": osculant.Adagrad(learning_rate=0.1),
    "rmsprop": osculant.RMSProp(learning_rate=0.1),
}
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(48, 5))
TARGETS = np.eye(3)[(INPUTS @ RNG.normal(size=(5, 3))).argmax(axis=1)]
PROBLEM = mlp([5, 4, 3], seed=0)


def train(backend, solver, steps, **options):
    """Fit a small network; curvature and ratio see samples of their own, if they can."""
    params = optree.tree_map(backend.from_numpy, PROBLEM.params)
    data = backend.from_numpy(INPUTS), backend.from_numpy(TARGETS)
    apart = {"curvature": osculant.Batches(data, 8, seed=1), "ratio": [data]}
    return osculant.fit(
        osculant.oracle(model=PROBLEM.model, loss=PROBLEM.loss, params=params),
        params,
        osculant.Batches(data, 16, seed=0),
        solver=solver,
        steps=steps,
        **{part: batches for part, batches in apart.items() if part in solver.samples},
        **options,
    )


@cache
def on_numpy(name):
    return train(backends.get("numpy"), SOLVERS[name], 10)


@pytest.mark.parametrize("name", list(SOLVERS))
def test_ten_steps_are_those_of_numpy_and_of_a_run_that_is_resumed(backend, name, tmp_path):
    """Rounding alone tells backends apart: by 1e-13 of the loss, and by 1e-15 without CG.

    That holds for runs that converge; one that oscillates makes 1e-9 of it in ten steps. The run
    that is resumed stopped within an epoch, and is the same to the last bit.
    """
    solver, expected = SOLVERS[name], on_numpy(name)
    whole = train(backend, solver, 10)
    np.testing.assert_allclose(whole.history["fun"], expected.history["fun"], rtol=1e-11)
    assert len(set(expected.history["fun"])) == 10

    for steps in (5, 10):
        resumed = train(backend, solver, steps, checkpoint=tmp_path / "run")
    assert resumed.history["fun"] == whole.history["fun"]
    restored = named_leaves(resumed.state)
    for leaf, array in named_leaves(whole.state).items():
        same = backend.to_numpy(restored[leaf]), backend.to_numpy(array)
        np.testing.assert_array_equal(*same, err_msg=leaf)

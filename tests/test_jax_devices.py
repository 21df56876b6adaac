"""Data that lie on several devices of JAX go through oracle, solvers and host loops as they are.

Run as a program, this file has four devices, and prints what it finds.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import osculant

ROOT = Path(__file__).parents[1]
ROWS, METHODS = 64, ["lbfgs", "newton-krylov"]


def problem():
    """Return inputs, targets and a start, on the host."""
    random = np.random.default_rng(0)
    X, w = random.standard_normal((ROWS, 5)), random.standard_normal(5)
    y = np.tanh(X @ w) + 0.1 * random.standard_normal(ROWS)
    return X, y, {"W": random.standard_normal((5, 4)), "v": random.standard_normal(4)}


def findings():
    """Yield names and what JSON can hold."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    def model(params, X):
        return jnp.tanh(X @ params["W"]) @ params["v"]

    def loss(z, y):
        return jnp.mean((z - y) ** 2)

    def gathering(params, X):
        return model(params, jax.lax.with_sharding_constraint(X, replicated))

    def flat(tree):
        return oracle.ravel(tree).tolist()

    X, y, start = problem()
    mesh = Mesh(jax.devices(), ("samples",))
    rows = NamedSharding(mesh, PartitionSpec("samples"))
    replicated = NamedSharding(mesh, PartitionSpec())
    params, data = jax.device_put(start, replicated), jax.device_put((X, y), rows)
    one_params, one_data = jax.tree.map(jnp.asarray, (start, (X, y)))
    oracle = osculant.oracle(model=model, loss=loss, params=params)
    regularized = osculant.Regularized(oracle, 1e-2)

    for method in METHODS:
        run = {"method": method, "atol": 1e-9}
        solution = osculant.minimize(regularized, params, args=data, **run)
        alone = osculant.minimize(regularized, one_params, args=one_data, **run)
        yield f"{method} success", [alone.success, solution.success]
        yield f"{method} x", [flat(alone.x), flat(solution.x)]
        lies = [
            leaf.sharding.is_equivalent_to(replicated, leaf.ndim) for leaf in solution.x.values()
        ]
        yield f"{method} x on all devices", all(lies)

    # Batches of arrays on devices, and batches of the host that are put there.
    batches = osculant.Batches(data, 16, seed=0)
    yield "batches stay", all(a.sharding == rows for batch in batches for a in batch)

    def put(epoch):
        host = osculant.Batches((X, y), 16, seed=0)
        return (jax.device_put(batch, rows) for batch in host.epoch(epoch))

    fits = []
    for source, place in (
        (osculant.Batches(one_data, 16, seed=0), one_params),
        (batches, params),
        (put, params),
    ):
        fits.append(osculant.fit(oracle, place, source, solver="curveball", epochs=3))
    yield "fit x", [flat(fitted.x) for fitted in fits]
    yield "data stay", all(a.sharding == rows and not a.is_deleted() for a in data)
    step = oracle.flow.jit(osculant.core.drive.run._advance, (0, 1, 2), (5,))
    before = step._cache_size()
    osculant.fit(osculant.Regularized(oracle, 0.5), params, batches, solver="sgd", epochs=2)
    yield "programs of a fit", step._cache_size() - before

    x, V = oracle.ravel(params), jax.device_put(jnp.ones((24, 3)), replicated)
    other = osculant.oracle(model=gathering, loss=loss, params=params)
    for name, around in {"sharded": oracle, "gathered": other}.items():

        def everything(x, V, data, around=around):
            pt = around.at(x, *data)
            products = pt.hvp(V), pt.ggn(V), pt.vgv(V), pt.third(V)
            return pt.value, pt.grad, products, around.value(x, *data)

        yield name, jax.jit(everything).lower(x, V, data).compile().as_text()

    spread = {
        "W": jax.device_put(start["W"], NamedSharding(mesh, PartitionSpec(None, "samples"))),
        "v": jax.device_put(start["v"], rows),
    }
    yield "vector is spread", not oracle.ravel(spread).sharding.is_fully_replicated
    solution = osculant.minimize(regularized, spread, args=data, method="lbfgs", atol=1e-9)
    yield "spread x", flat(solution.x)


@pytest.fixture(scope="module")
def found():
    """Return what a process with four devices finds."""
    pytest.importorskip("jax", reason="JAX is not installed")
    flags = "--xla_force_host_platform_device_count=4"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    run = subprocess.run(
        [sys.executable, "-W", "error", __file__],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("method", METHODS)
def test_solutions_are_those_on_one_device(found, method):
    alone, spread = found[f"{method} x"]
    np.testing.assert_allclose(spread, alone, atol=1e-8)
    assert found[f"{method} success"] == [True, True] and found[f"{method} x on all devices"]


def test_fit_on_batches_of_sharded_arrays(found):
    alone, taken, put = found["fit x"]
    np.testing.assert_allclose(taken, alone, rtol=1e-9)
    np.testing.assert_allclose(put, alone, rtol=1e-9)
    assert found["batches stay"] and found["data stay"]


def test_a_fit_is_compiled_once(found):
    assert found["programs of a fit"] == 1


def test_data_are_not_gathered(found):
    """No device holds an array of all rows; the results of each meet in an all-reduce."""
    whole = re.compile(rf"f64\[{ROWS}[,\]]")
    assert re.search(r"\ball-reduce(-start)?\(", found["sharded"])
    assert "all-gather" not in found["sharded"] and not whole.search(found["sharded"])
    assert "all-gather" in found["gathered"] and whole.search(found["gathered"])


def test_parameters_may_be_spread_too(found):
    assert found["vector is spread"]
    np.testing.assert_allclose(found["spread x"], found["lbfgs x"][0], atol=1e-8)


if __name__ == "__main__":
    print(json.dumps(dict(findings())))

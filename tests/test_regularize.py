"""Weight decay in the function; Dropout and batch normalisation held within a step."""

from dataclasses import replace

import numpy as np
import optree
import pytest

import osculant
from osculant.core.arrays import namespace
from osculant.core.layers import Layers
from osculant.core.structure import Structure
from osculant.testing import SCENARIOS, cases
from osculant.testing.support import BACKENDS
from osculant.testing.support import factory as plain_oracle

# Weight decay: the conformance laws ---------------------------------------------------------


def decay_of(params):
    """The first tensor is decayed more than the others."""
    first, *_ = Structure(params).names
    return {first: 0.7, "*": 0.3}


def weights(params):
    structure = Structure(params)
    return np.concatenate(
        [np.full(size, 0.3 if i else 0.7) for i, size in enumerate(structure.sizes)]
    )


def block(A, B):
    return np.block(
        [[A, np.zeros((A.shape[0], B.shape[1]))], [np.zeros((B.shape[0], A.shape[1])), B]]
    )


def regularized(scenario):
    """The scenario of f + w x^2 / 2; of a composition, with the outputs (z, sqrt(w) x)."""
    w = weights(scenario.params)

    def closed_form(params, *data):
        f, x = scenario.derivatives(params, data), Structure(params).ravel(params)
        sum_of_both = f._replace(
            value=f.value + w @ x**2 / 2, grad=f.grad + w * x, hess=f.hess + np.diag(w)
        )
        if f.jac is None:
            return sum_of_both
        return sum_of_both._replace(
            jac=np.vstack([f.jac, np.diag(np.sqrt(w))]),
            loss_hess=block(f.loss_hess, np.eye(x.size)),
        )

    if scenario.fun is not None:
        return replace(scenario, closed_form=closed_form)

    def model(params, *inputs):
        leaves = optree.tree_leaves(params)
        xp = namespace(leaves[0])
        z = scenario.model(params, *inputs)
        roots = [np.sqrt(0.3 if i else 0.7) for i in range(len(leaves))]
        tail = [float(r) * xp.reshape(p, (-1,)) for r, p in zip(roots, leaves, strict=True)]
        return xp.concat([xp.reshape(z, (-1,)), *tail])

    return replace(scenario, model=model, closed_form=closed_form)


def factory(scenario, params):
    """Wrap the oracle of what the scenario was made from."""
    if scenario.fun is None:
        model, n = scenario.model, Structure(scenario.params).size
        outputs = SCENARIOS[scenario.name].objective.outputs
        shape = np.shape(outputs(scenario.params, scenario.here.data))
        scenario = replace(
            scenario, model=lambda p, *a: namespace(m := model(p, *a)).reshape(m[:-n], shape)
        )
    return osculant.Regularized(plain_oracle(scenario, params), decay_of(scenario.params))


def all_cases():
    for support in BACKENDS:
        if support.module in ("numpy", "torch", "jax.numpy") and support.missing() is None:
            yield from cases(
                factory,
                scenarios=[regularized(SCENARIOS[name]) for name in ("cubic", "tree", "tall")],
                dtypes=["float64"],
                convert=support.convert,
                uncompiled=support.uncompiled,
            )


@pytest.mark.parametrize("case", list(all_cases()), ids=str)
def test_conformance(case):
    case.run()


# Weight decay: what it does -----------------------------------------------------------------


def test_every_answer_keeps_its_dtype(backend):
    params = {
        "a": backend.from_numpy(np.ones(2, np.float32)),
        "b": backend.from_numpy(np.ones(3, np.float32)),
    }
    oracle = osculant.Regularized(
        osculant.oracle(lambda p: (p["a"] ** 2).sum(), params), {"b": 0.1}
    )
    point = oracle.at(oracle.ravel(params))
    for answer in (point.value, point.grad, point.hvp(point.grad), oracle.value(point.grad)):
        assert str(answer.dtype).endswith("float32")


def test_the_minimum_is_that_of_the_sum(backend):
    """(x - a)^2 + w x^2 / 2 has its minimum at a / (1 + w / 2)."""
    x0 = {"bias": backend.from_numpy(np.zeros(2)), "weight": backend.from_numpy(np.zeros(2))}
    a = backend.from_numpy(np.array([1.0, 2.0]))

    def fun(p, a):
        return ((p["bias"] - a) ** 2).sum() + ((p["weight"] - a) ** 2).sum()

    oracle = osculant.Regularized(osculant.oracle(fun, x0), {"weight": 2.0})
    for method in ("lbfgs", "trust-region"):
        x = osculant.minimize(oracle, x0, method=method, args=(a,), tol=1e-10).x
        np.testing.assert_allclose(backend.to_numpy(x["bias"]), [1.0, 2.0], atol=1e-9)
        np.testing.assert_allclose(backend.to_numpy(x["weight"]), [0.5, 1.0], atol=1e-9)


def test_ridge_regression_is_least_squares(backend):
    """Levenberg-Marquardt sees w x^2 / 2 as n more residuals, sqrt(w) x."""
    rng = np.random.default_rng(0)
    A, b, w = rng.normal(size=(6, 3)), rng.normal(size=6), 0.7
    A_, b_ = backend.from_numpy(A), backend.from_numpy(b)
    x0 = backend.from_numpy(np.ones(3))
    base = osculant.oracle(
        model=lambda x, A: A @ x, loss=lambda z, b: ((z - b) ** 2).sum() / 2, params=x0
    )
    oracle = osculant.Regularized(base, w)
    point = oracle.at(x0, A_, b_)
    np.testing.assert_allclose(
        backend.to_numpy(point.vjp(point.loss_grad)), backend.to_numpy(point.grad), rtol=1e-12
    )
    x = osculant.minimize(oracle, x0, method="lm", args=(A_, b_), tol=1e-10).x
    expected = np.linalg.solve(A.T @ A + w * np.eye(3), A.T @ b)
    np.testing.assert_allclose(backend.to_numpy(x), expected, rtol=1e-9)


def test_the_first_pattern_that_fits_counts_and_the_rest_is_spared():
    params = {name: np.ones(1) for name in ("a.bias", "a.weight", "b.bias", "b.weight")}
    oracle = osculant.oracle(lambda p: 0 * p["a.bias"].sum(), params)

    def gradient(decay):
        decayed = osculant.Regularized(oracle, decay)
        return decayed.at(decayed.ravel(params)).grad.tolist()

    assert gradient(0.1) == [0.1, 0.1, 0.1, 0.1]
    assert gradient({"*weight": 0.1}) == [0.0, 0.1, 0.0, 0.1]
    assert gradient({"*bias": 0.0, "a.*": 0.2, "*": 0.1}) == [0.0, 0.2, 0.0, 0.1]


@pytest.mark.parametrize(
    ("decay", "message"),
    [
        (-1.0, "weight decay -1.0"),
        (float("nan"), "weight decay nan"),
        ({"x": float("inf")}, "weight decay inf"),
        ({"*.weight": 0.1}, "no parameter is called '\\*.weight'; there are: x"),
    ],
)
def test_weights_that_make_no_sense(decay, message):
    oracle = osculant.oracle(lambda x: (x**2).sum(), np.zeros(2))
    with pytest.raises(ValueError, match=message):
        osculant.Regularized(oracle, decay)


def test_equal_regularised_oracles_share_what_is_compiled():
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    traces = []

    def fun(x):
        traces.append(1)
        return ((x - 1) ** 4).sum()

    def run(decay):
        before = len(traces)
        x0 = jax.numpy.zeros(3)
        osculant.minimize(osculant.Regularized(osculant.oracle(fun, x0), decay), x0)
        return len(traces) - before

    assert run(0.1) > 0
    assert run(0.1) == 0


# Models that draw and keep statistics -------------------------------------------------------


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def network(torch, *middle):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), *middle, torch.nn.Linear(8, 1)).double()
    inputs = torch.randn(20, 3, dtype=torch.float64) + 1
    return model, inputs, inputs.sum(dim=1, keepdim=True).sin()


SOLVERS = [
    osculant.TrustRegion(),
    osculant.NewtonKrylov(),
    osculant.TrustRegion(curvature="gauss-newton"),
]


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_one_mask_within_a_step_and_another_in_the_next(torch, solver):
    model, inputs, targets = network(torch, torch.nn.Dropout(0.5))
    masks = []
    model[1].register_forward_hook(lambda module, args, out: masks[-1].append(out.detach() == 0))
    oracle = osculant.oracle(model=model, loss=torch.nn.functional.mse_loss)

    def batches():
        for _ in range(3):
            masks.append([])
            yield inputs, targets

    before = torch.get_rng_state()
    osculant.fit(oracle, dict(model.named_parameters()), batches, solver=solver, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(masks) == 3 and any(len(step) >= 2 for step in masks)
    for step in masks:
        assert all(torch.equal(mask, step[0]) for mask in step)
    assert not torch.equal(masks[0][0], masks[1][0])


def test_the_masks_follow_the_seed(torch):
    def losses(seed):
        model, inputs, targets = network(torch, torch.nn.Dropout(0.5))
        oracle = osculant.oracle(model=model, loss=torch.nn.functional.mse_loss)
        batches = [(inputs, targets)] * 4
        params = dict(model.named_parameters())
        return osculant.fit(oracle, params, batches, solver="trust-region", seed=seed).history[
            "fun"
        ]

    assert losses(0) == losses(0) != losses(1)


@pytest.mark.parametrize(
    "solver", [*SOLVERS, osculant.NewtonKrylov(global_gradient="full")], ids=str
)
def test_running_statistics_move_once_a_step(torch, solver):
    model, inputs, targets = network(torch, torch.nn.BatchNorm1d(8))
    norm = model[1].double()
    oracle = osculant.oracle(model=model, loss=torch.nn.functional.mse_loss)
    params = dict(model.named_parameters())
    hidden = model[0](inputs).detach()
    osculant.fit(oracle, params, [(inputs, targets)], solver=solver)
    torch.testing.assert_close(norm.running_mean, 0.1 * hidden.mean(dim=0))
    assert norm.num_batches_tracked == 1
    osculant.fit(oracle, params, [(inputs, targets)], solver=solver, epochs=4)
    assert norm.num_batches_tracked == 5


def test_statistics_stay_where_nothing_is_held_or_the_batch_is_not_finite(torch):
    model, inputs, targets = network(torch, torch.nn.BatchNorm1d(8).double())
    oracle = osculant.oracle(model=model, loss=torch.nn.functional.mse_loss)
    params = dict(model.named_parameters())
    oracle.value(oracle.ravel(params), inputs, targets)
    osculant.fit(oracle, params, [(inputs * float("nan"), targets)] * 2, solver="trust-region")
    assert model[1].num_batches_tracked == 0 and torch.isfinite(model[1].running_mean).all()


def test_regularised_modules_are_held_too(torch):
    model, inputs, targets = network(torch, torch.nn.BatchNorm1d(8).double())
    base = osculant.oracle(model=model, loss=torch.nn.functional.mse_loss)
    oracle = osculant.Regularized(base, {"*.weight": 1e-2})
    osculant.fit(
        oracle, dict(model.named_parameters()), [(inputs, targets)] * 3, solver="trust-region"
    )
    assert model[1].num_batches_tracked == 3


def test_the_layers_of_a_regularised_module_are_held_too(torch):
    model, inputs, targets = network(torch, torch.nn.Dropout(0.5))
    oracle = osculant.oracle(model=model, loss=torch.nn.functional.mse_loss)
    decayed, x = osculant.Regularized(oracle, 0.1), oracle.ravel(dict(model.named_parameters()))
    with decayed.held(1):
        outputs = oracle.at(x, inputs, targets).outputs
        ours, theirs = (Layers(each, x, inputs, targets) for each in (decayed, oracle))
        assert torch.equal(ours.point.outputs, outputs)
        for mine, other in zip(ours.seen(outputs), theirs.seen(outputs), strict=True):
            assert torch.equal(mine.inputs, other.inputs)
            assert torch.equal(mine.gradients, other.gradients)


def test_the_torch_optimizer_moves_named_buffers_once_a_step(torch):
    from osculant.adapters import torch_adapter

    model, inputs, targets = network(torch, torch.nn.BatchNorm1d(8).double())
    hidden = model[0](inputs).detach()
    optimizer = torch_adapter.TrustRegion(model.parameters(), buffers=model.buffers())
    optimizer.step(lambda: torch.nn.functional.mse_loss(model(inputs), targets))
    torch.testing.assert_close(model[1].running_mean, 0.1 * hidden.mean(dim=0))
    optimizer.step(lambda: torch.nn.functional.mse_loss(model(inputs), targets))
    assert model[1].num_batches_tracked == 2

    before = model[1].running_mean.clone()

    def fails():
        model(inputs)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step(fails)
    assert torch.equal(model[1].running_mean, before)


def test_the_torch_optimizer_evaluates_one_function_within_a_step(torch):
    """Whose buffer each evaluation changes, and the loss depends on."""
    from osculant.adapters import torch_adapter

    x = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    buffer = torch.zeros(1, dtype=torch.float64)

    def closure():
        buffer.add_(1)
        return ((x - buffer.clone()) ** 2).sum()

    torch_adapter.TrustRegion([x], buffers=[buffer], radius=10.0).step(closure)
    assert x.item() == 1.0 and buffer.item() == 1.0


def test_a_jax_model_draws_from_a_seed_in_its_data():
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    traces = []

    def fun(w, seed, X, y):
        traces.append(1)
        keep = jax.random.bernoulli(jax.random.key(seed), 0.5, X.shape)
        return ((jax.numpy.where(keep, 2 * X, 0.0) @ w - y) ** 2).mean()

    X = np.random.default_rng(0).normal(size=(40, 3))
    data = (jax.numpy.asarray(X), jax.numpy.asarray(X.sum(axis=1)))
    w = jax.numpy.zeros(3)
    oracle = osculant.oracle(fun, w)

    def losses(seed):
        batches = osculant.Batches(data, 10, seed=seed, with_seed=True)
        return osculant.fit(oracle, w, batches, solver="trust-region", epochs=2).history["fun"]

    first = losses(0)
    before = len(traces)
    assert losses(0) == first != losses(1)
    assert len(traces) == before

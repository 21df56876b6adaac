"""KFAC: what layers are seen, the factors made of it, the step, and every backend."""

import numpy as np
import optree
import pytest

import osculant
from osculant import ops
from osculant.core.arrays import namespace
from osculant.core.kronecker import Kronecker, factors_of
from osculant.core.layers import Layer, Layers, curvature_noise, layers_of
from osculant.core.regularize import Regularized
from osculant.problems.models import softmax_cross_entropy, squared_error

RNG = np.random.default_rng(0)
PARAMS = {
    "bias1": RNG.normal(size=2),
    "bias2": RNG.normal(size=3),
    "kernel": RNG.normal(size=(2, 2, 2, 3)),
    "scale": RNG.normal(size=3),
    "weight": RNG.normal(size=(16, 3)),
}
IMAGES, TARGETS = RNG.normal(size=(5, 2, 4, 5)), RNG.normal(size=(5, 3))


@pytest.fixture(autouse=True)
def same_numbers():
    """The same numbers for a test whatever ran before it."""
    RNG.bit_generator.state = np.random.default_rng(1).bit_generator.state


def model(p, images):
    z = ops.conv2d(images, p["kernel"], p["bias1"], stride=(1, 2), padding=(1, 0))
    z = namespace(z).reshape(namespace(z).tanh(z), (images.shape[0], -1))[:, :16]
    return ops.linear(z, p["weight"], p["bias2"]) * p["scale"]


def cases(backend):
    params = optree.tree_map(backend.from_numpy, PARAMS)
    oracle = osculant.oracle(model=model, loss=squared_error, params=params)
    return oracle, params, (backend.from_numpy(IMAGES), backend.from_numpy(TARGETS))


def dense(inputs, p=3, q=2, loss=squared_error, bias=True):
    """A model of one dense layer."""
    params = {"weight": RNG.normal(size=(p, q))}
    if bias:
        params["bias"] = RNG.normal(size=q)
    oracle = osculant.oracle(
        model=lambda p, a: ops.linear(a, p["weight"], p.get("bias")), loss=loss, params=params
    )
    return oracle, oracle.ravel(params)


# What layers see ---------------------------------------------------------------------------------


def test_gradient_of_each_sample_is_inputs_times_output_gradients(backend):
    oracle, params, data = cases(backend)
    x = oracle.ravel(params)
    point, layers = oracle.at(x, *data), Layers(oracle, x, *data)
    assert [oracle.structure.names[tag.weight] for tag in layers.tags] == ["kernel", "weight"]
    U = RNG.normal(size=15)
    seen = layers.seen(backend.from_numpy(U))
    for n in range(5):
        alone = np.where(np.arange(15) // 3 == n, U, 0.0)
        gradients = oracle.unravel(point.vjp(backend.from_numpy(alone)))
        for (layer, a, d), weight, bias in zip(
            seen, ("kernel", "weight"), ("bias1", "bias2"), strict=True
        ):
            a, d = backend.to_numpy(a)[n], backend.to_numpy(d)[n]
            W = backend.to_numpy(gradients[weight])
            outer = sum(np.outer(one, other) for one, other in zip(a, d, strict=True))
            W = W.reshape(2, -1).T if layer.convolution else W
            np.testing.assert_allclose(outer, W, rtol=1e-10)
            np.testing.assert_allclose(d.sum(0), backend.to_numpy(gradients[bias]), rtol=1e-10)


def test_torch_module_sees_the_same():
    torch = pytest.importorskip("torch")
    from osculant import backends

    oracle, params, data = cases(backends.get("torch"))
    layers = Layers(oracle, oracle.ravel(params), *data)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(2, 2, (2, 3), stride=(1, 2), padding=(1, 0))
            self.dense = torch.nn.Linear(16, 3)
            self.scale = torch.nn.Parameter(params["scale"])

        def forward(self, images):
            z = torch.tanh(self.conv(images)).reshape(images.shape[0], -1)[:, :16]
            return self.dense(z).mul_(self.scale)  # overwrites what the layer returned

    net = Net().double()
    with torch.no_grad():
        net.conv.weight.copy_(params["kernel"])
        net.conv.bias.copy_(params["bias1"])
        net.dense.weight.copy_(params["weight"].T)
        net.dense.bias.copy_(params["bias2"])
    own = osculant.oracle(model=net, loss=squared_error)
    theirs = Layers(own, own.ravel(dict(net.named_parameters())), *data)
    U = torch.from_numpy(RNG.normal(size=15))
    for ours, other in zip(layers.seen(U), theirs.seen(U), strict=True):
        assert other.layer.outputs_first
        torch.testing.assert_close(other.inputs, ours.inputs)
        torch.testing.assert_close(other.gradients, ours.gradients)


def test_computed_weights_and_weights_used_twice_are_not_layers():
    params = {"a": RNG.normal(size=(3, 3)), "b": RNG.normal(size=(3, 3)), "c": np.eye(3)}

    def twice(p, z):
        return ops.linear(ops.linear(ops.linear(z, p["a"]), p["a"]) @ p["b"].T, p["c"])

    oracle = osculant.oracle(model=twice, loss=squared_error, params=params)
    x, z = oracle.ravel(params), RNG.normal(size=(4, 3))
    assert layers_of(oracle, x, z, z) == (Layer(2, None, False, False),)
    layers = Layers(oracle, x, z, z)
    assert [seen.layer.weight for seen in layers.seen(np.ones(12))] == [2]


def test_model_without_layers_is_refused():
    oracle = osculant.oracle(model=lambda w, z: z @ w, loss=squared_error, params=np.eye(3))
    z = RNG.normal(size=(4, 3))
    with pytest.raises(ValueError, match="no layer to make factors of"):
        osculant.fit(oracle, np.eye(3), [(z, z)], solver="kfac")
    with pytest.raises(osculant.ProductUnavailable, match="no layers to look into"):
        layers_of(osculant.oracle(lambda x: (x**2).sum(), np.ones(3)), np.ones(3))


# Factors -----------------------------------------------------------------------------------------


def test_factors_are_means_over_samples_with_sums_and_means_over_places(backend):
    oracle, params, data = cases(backend)
    layers = Layers(oracle, oracle.ravel(params), *data)
    for seen in layers.seen(backend.from_numpy(RNG.normal(size=15))):
        A, G = (backend.to_numpy(F) for F in factors_of(seen))
        a, d = backend.to_numpy(seen.inputs), backend.to_numpy(seen.gradients)
        (N, T, p), q = a.shape, d.shape[2]
        expected = np.zeros((p + 1, p + 1)), np.zeros((q + 1, q + 1))
        for n in range(N):
            for t in range(T):
                one = np.append(a[n, t], 1.0)
                expected[0][:] += np.outer(one, one) / N
                expected[1][:q, :q] += np.outer(d[n, t], d[n, t]) / T
        np.testing.assert_allclose(A, expected[0], rtol=1e-12)
        np.testing.assert_allclose(G, expected[1], rtol=1e-12, atol=1e-14)
        assert (10 if seen.layer.convolution else 1) == T


@pytest.mark.parametrize("loss", [squared_error, softmax_cross_entropy])
def test_noise_has_the_second_moments_of_the_loss(loss):
    z = RNG.normal(size=(2, 3))
    targets = np.abs(z) / np.abs(z).sum(axis=1, keepdims=True)
    point = osculant.oracle(model=lambda z: z, loss=lambda z: loss(z, targets), params=z).at(
        z.reshape(-1)
    )
    draws = np.stack([curvature_noise(point, np.asarray(k)) for k in range(4000)])
    H = point.loss_hvp(np.eye(6))
    np.testing.assert_allclose(draws.T @ draws / 4000, H, atol=0.05 * np.abs(H).max())


def test_factors_decay():
    """The k-th estimate counts for a k-th until that is less than 1 - decay."""
    oracle, x = dense(3)
    K = Kronecker(factors_every=1, inverses_every=1, decay=0.6)
    state, mean = K.init(oracle, x), 0.0
    for k in range(4):
        a = RNG.normal(size=(6, 3))
        state = K.update(oracle, state, x, np.asarray(1.0), (a, a[:, :2]))
        ones = np.hstack([a, np.ones((6, 1))])
        past = min(k / (k + 1), 0.6)
        mean = past * mean + (1 - past) * ones.T @ ones / 6
        np.testing.assert_allclose(state.factors[1][0], mean)
    unusable = K.update(oracle, state, x, np.asarray(1.0), (a * np.nan, a[:, :2]))
    np.testing.assert_array_equal(unusable.factors[1][0], state.factors[1][0])


def test_factored_damping():
    """(A + pi gamma)^-1 M (G + gamma / pi)^-1, with pi^2 the ratio of the mean eigenvalues."""
    oracle, x = dense(3)
    a = RNG.normal(size=(6, 3))
    K = Kronecker()
    state = K.update(oracle, K.init(oracle, x), x, np.asarray(0.25), (a, a[:, :2]))
    A, G = state.factors[1][0], state.factors[1][1][:2, :2]
    pi = np.sqrt((np.trace(A) / 4) / (np.trace(G) / 2))
    v = RNG.normal(size=8)
    solved = oracle.unravel(K.solve(oracle, state, x, v, (a, a[:, :2])))
    M = np.vstack([oracle.unravel(v)["weight"], oracle.unravel(v)["bias"]])
    P = np.linalg.inv(A + 0.5 * pi * np.eye(4)) @ M @ np.linalg.inv(G + 0.5 / pi * np.eye(2))
    np.testing.assert_allclose(np.vstack([solved["weight"], solved["bias"]]), P, rtol=1e-8)


def test_periods_and_examples():
    oracle, x = dense(3)
    K = Kronecker(factors_every=3, inverses_every=6, examples=4)
    state, kept = K.init(oracle, x), []
    for _ in range(8):
        a = RNG.normal(size=(6, 3))
        state = K.update(oracle, state, x, np.asarray(1.0), (a, a[:, :2]))
        kept.append((state.factors[1][0], state.inverses[1][0]))
        if len(kept) == 1:
            ones = np.hstack([a[:4], np.ones((4, 1))])
            np.testing.assert_allclose(state.factors[1][0], ones.T @ ones / 4)
    changes = [[t for t in range(1, 8) if (kept[t][i] != kept[t - 1][i]).any()] for i in range(2)]
    assert changes == [[1, 2, 3, 4, 6], [1, 2, 4, 6]]


def test_parameters_of_no_layer_and_long_sides_are_left_as_they_are():
    from osculant import backends

    oracle, params, data = cases(backends.get("numpy"))
    x, v = oracle.ravel(params), RNG.normal(size=oracle.size)
    for largest, unchanged in ((8192, {"scale"}), (12, {"scale", "weight", "bias2"})):
        K = Kronecker(largest=largest)
        state = K.update(oracle, K.init(oracle, x), x, np.asarray(1.0), data)
        Kv = K.solve(oracle, state, x, v, data)
        same = {n for n, where in oracle.groups.items() if (Kv[where] == v[where]).all()}
        assert same == unchanged


def test_convolution_of_one_pixel_is_a_dense_layer():
    a, y = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 2))
    W, b = RNG.normal(size=(3, 2)), RNG.normal(size=2)

    def conv(p, a):
        z = ops.conv2d(a[:, :, None, None], p["weight"], p["bias"])
        return namespace(z).reshape(z, (-1, 2))

    runs = []
    for fun, weight in (
        (lambda p, a: ops.linear(a, p["weight"], p["bias"]), W),
        (conv, W.T[:, :, None, None]),
    ):
        params = {"bias": b, "weight": np.ascontiguousarray(weight)}
        oracle = osculant.oracle(model=fun, loss=squared_error, params=params)
        runs.append(osculant.fit(oracle, params, [(a, y)] * 4, solver=osculant.KFAC(damping=1.0)))
    np.testing.assert_allclose(runs[1].history["fun"], runs[0].history["fun"], rtol=1e-10)
    np.testing.assert_allclose(runs[1].x["weight"][:, :, 0, 0].T, runs[0].x["weight"], rtol=1e-8)


# The step ----------------------------------------------------------------------------------------


def test_one_layer_least_squares_is_solved_by_one_step():
    """With one output K is the Hessian, so that the direction is Newton's, and its length 1."""
    a = RNG.normal(size=(9, 3)) * [1.0, 5.0, 0.2]
    y = RNG.normal(size=(9, 1))
    oracle, x = dense(3, q=1)
    solver = osculant.KFAC(damping=1e-22)
    state = solver.step(oracle, solver.init(oracle, x), a, y)
    ones = np.hstack([a, np.ones((9, 1))])
    w = np.linalg.lstsq(ones, y[:, 0], rcond=None)[0]
    tree = oracle.unravel(state.x)
    np.testing.assert_allclose(np.append(tree["weight"][:, 0], tree["bias"]), w, rtol=1e-5)
    np.testing.assert_allclose(state.p, [1.0, 0.0], atol=1e-6)


def test_whitened_inputs_make_the_direction_newtons():
    """A = I, and G is exact up to the signs that were drawn: its diagonal is the Hessian's."""
    Q, _ = np.linalg.qr(RNG.normal(size=(8, 3)))
    a, y = np.sqrt(8) * Q, RNG.normal(size=(8, 2))
    oracle, x = dense(3, bias=False)
    K = Kronecker()
    state = K.update(oracle, K.init(oracle, x), x, np.asarray(1e-12), (a, y))
    np.testing.assert_allclose(state.factors[0][0][:3, :3], np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.diag(state.factors[0][1])[:2], [1.0, 1.0])


def test_step_minimises_the_damped_quadratic_over_the_plane():
    from osculant import backends

    oracle, params, data = cases(backends.get("numpy"))
    solver = osculant.KFAC(damping=0.5, period=0)
    first = solver.step(oracle, solver.init(oracle, oracle.ravel(params)), *data)
    second = solver.step(oracle, first, *data)
    point, step = oracle.at(first.x, *data), second.x - first.x
    d = solver.blocks.solve(oracle, second.blocks, first.x, point.grad, data)
    residual = point.ggn(step) + 0.5 * step + point.grad
    for direction in (d, first.z):
        cosine = residual @ direction / np.linalg.norm(residual) / np.linalg.norm(direction)
        assert abs(cosine) < 1e-8
    assert np.linalg.norm(residual) > 1e-3
    np.testing.assert_allclose(second.z, step)
    assert (int(second.counts.gradients), int(second.counts.ggns)) == (4, 4)


@pytest.mark.parametrize(("scale", "moved"), [(0.1, 1 / 0.95), (0.5, 1.0), (1.0, 0.95)])
def test_lambda_follows_the_ratio(scale, moved):
    """The ratio's sample sees about ``scale`` times the function."""
    oracle, x = dense(3, q=1)
    a, y = RNG.normal(size=(9, 3)), RNG.normal(size=(9, 1))
    weighted = osculant.oracle(
        model=lambda p, a, w: ops.linear(a, p["weight"], p["bias"]) * w,
        loss=squared_error,
        params=oracle.unravel(x),
    )
    w = np.sqrt(scale) * np.ones((9, 1))
    solver = osculant.KFAC(damping=1e-6, period=1)
    ones = np.ones((9, 1))
    data = osculant.core.samples.Samples((a, ones, y), None, (a, w, y * w))
    state = solver.step(weighted, solver.init(weighted, x), data)
    assert float(state.damping) == pytest.approx(1e-6 * moved)


def test_step_that_is_not_finite_is_refused():
    def log_model(p, a):
        z = ops.linear(a, p)
        return namespace(z).log(z)

    params, a = np.ones((1, 1)), np.ones((4, 1))
    oracle = osculant.oracle(model=log_model, loss=squared_error, params=params)
    solver = osculant.KFAC(damping=1e-6, period=1)
    with np.errstate(invalid="ignore"):
        state = solver.step(oracle, solver.init(oracle, np.ones(1)), a, a * -9.0)
    np.testing.assert_array_equal(state.x, np.ones(1))
    assert float(state.damping) == pytest.approx(1e-5) and not state.z.any()


# Backends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "solver",
    [
        osculant.KFAC(damping=1.0),
        osculant.CurveBall(damping=1.0, preconditioner=Kronecker()),
    ],
    ids=["kfac", "curveball"],
)
def test_backends_agree_on_batches(backend, solver):
    from osculant import backends

    def run(module):
        oracle, params, (images, targets) = cases(module)
        batches = osculant.Batches((images, targets), 4, seed=0)
        return osculant.fit(oracle, params, batches, solver=solver, steps=8)

    ours, reference = run(backend), run(backends.get("numpy"))
    np.testing.assert_allclose(ours.history["fun"], reference.history["fun"], rtol=1e-7)
    assert reference.history["fun"][-2] < 0.3 * reference.history["fun"][0]


def test_first_step_of_preconditioned_curveball_is_kfacs():
    from osculant import backends

    oracle, params, data = cases(backends.get("numpy"))
    x, K = oracle.ravel(params), Kronecker()
    solvers = [osculant.KFAC(damping=2.0), osculant.CurveBall(damping=2.0, preconditioner=K)]
    steps = [solver.step(oracle, solver.init(oracle, x), *data).x - x for solver in solvers]
    np.testing.assert_allclose(steps[1], steps[0], rtol=1e-8)


def test_regularised_function_has_the_same_layers():
    from osculant import backends

    oracle, params, data = cases(backends.get("numpy"))
    decayed, x = Regularized(oracle, 0.1), oracle.ravel(params)
    assert layers_of(decayed, x, *data) == layers_of(oracle, x, *data)
    solution = osculant.fit(decayed, params, [data] * 30, solver=osculant.KFAC(damping=1.0))
    gradient = decayed.at(decayed.ravel(solution.x), *data).grad
    assert np.linalg.norm(gradient) < 0.1 * np.linalg.norm(decayed.at(x, *data).grad)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: osculant.KFAC(damping=0.0), "damping is 0.0"),
        (lambda: osculant.KFAC(factor=2.0), "factor is 2.0"),
        (lambda: osculant.KFAC(period=-1), "period is -1"),
        (lambda: Kronecker(factors_every=0), "factors_every is 0"),
        (lambda: Kronecker(decay=1.0), "decay is 1.0"),
        (lambda: Kronecker(examples=0), "examples is 0"),
        (lambda: ops.linear(np.ones((2, 3)), np.ones((4, 2))), "the weight has shape"),
        (lambda: ops.linear(np.ones((2, 3)), np.ones((3, 2)), np.ones(3)), "the bias has shape"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()

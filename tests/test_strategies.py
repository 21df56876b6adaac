"""Where derivatives come from: complex steps, finite differences, the user's own functions."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import osculant
from osculant import NotAnalytic, Product, ProductUnavailable
from osculant.backends.strategies import ComplexStep, FiniteDifference
from osculant.core.arrays import namespace
from osculant.testing.scenarios import SCENARIOS
from osculant.testing.support import BACKENDS

SUPPORT = {support.name: support for support in BACKENDS}


@pytest.fixture(params=["NumPy", "array-api-strict", "PyTorch", "JAX"])
def support(request):
    support = SUPPORT[request.param]
    if reason := support.missing():
        pytest.skip(reason)
    with support.context():
        yield support


def make(scenario, params, **options):
    if scenario.fun is not None:
        return osculant.oracle(scenario.fun, params, **options)
    return osculant.oracle(model=scenario.model, loss=scenario.loss, params=params, **options)


def answers(oracle, scenario, support, dtype):
    """Return every product at the scenario's place, as NumPy arrays."""

    def convert(tree):
        if isinstance(tree, dict):
            return {key: convert(item) for key, item in tree.items()}
        if isinstance(tree, list | tuple):
            return type(tree)(map(convert, tree))
        floating = np.issubdtype(tree.dtype, np.floating)
        return support.convert(np.asarray(tree.astype(dtype) if floating else tree))

    x, data = convert(scenario.here.x), convert(scenario.data)
    params = convert(scenario.params)
    oracle = oracle(scenario, params)
    point = oracle.at(x, *data)
    v = convert(np.cos(np.arange(x.shape[0])))
    found = {"value": point.value, "grad": point.grad, "hvp": point.hvp(v), "vhv": point.vhv(v)}
    if scenario.fun is None:
        u = point.jvp(v)
        found |= {"jvp": u, "vjp": point.vjp(u), "loss_hvp": point.loss_hvp(u)}
        found |= {"ggn": point.ggn(v), "vgv": point.vgv(v)}
    return {name: np.asarray(array) for name, array in found.items()}


def largest_error(found, expected):
    return max(
        np.max(np.abs(found[name] - expected[name])) / max(1.0, np.max(np.abs(expected[name])))
        for name in expected
    )


# Against autodiff, and the closed forms -----------------------------------------------------


@pytest.mark.parametrize("scheme", ["forward", "central"])
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_finite_differences_approximate(name, scheme):
    scenario, support = SCENARIOS[name], SUPPORT["NumPy"]
    exact = answers(make, scenario, support, "float64")
    found = answers(
        lambda *args: make(*args, products=FiniteDifference(scheme)), scenario, support, "float64"
    )
    assert largest_error(found, exact) <= {"forward": 2e-3, "central": 1e-6}[scheme]


def test_what_the_function_holds_is_held_where_the_steps_lead():
    """Dropout draws the same mask at the point and beside it; the statistics move once."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 1)).double()
    net.register_buffer("scale", torch.ones(()))
    inputs, targets = torch.ones(4, 2, dtype=torch.float64), torch.zeros(4, 1).double()
    found = {}
    for products in ("autodiff", "complex-step", "finite-difference"):
        oracle = osculant.oracle(model=net, loss=nn.functional.mse_loss, products=products)
        assert list(oracle.buffers) == ["scale"]
        x = oracle.ravel(dict(net.named_parameters()))
        with oracle.held(3):
            found[products] = oracle.at(x, inputs, targets).hvp(torch.ones_like(x))
    for products, rtol in (("complex-step", 1e-12), ("finite-difference", 1e-4)):
        torch.testing.assert_close(found[products], found["autodiff"], rtol=rtol, atol=1e-5)


# The analytic extension ---------------------------------------------------------------------


KINKED = {
    "abs": lambda xp, x: xp.abs(x),
    "sign": lambda xp, x: x * x * xp.sign(x),
    "maximum": lambda xp, x: xp.maximum(x * x, x),
    "minimum": lambda xp, x: xp.minimum(x**3, x),
    "relu": lambda xp, x: xp.where(x > 0, x * x, 0.0 * x),
    "clip": lambda xp, x: xp.clip(x * x, 0.1, 0.5),
    "max": lambda xp, x: xp.max(x * x),
    "min": lambda xp, x: xp.min(x * x),
    "std": lambda xp, x: xp.std(x),
    "norm": lambda xp, x: xp.linalg.vector_norm(x),
    "1-norm": lambda xp, x: xp.linalg.vector_norm(x, ord=1) ** 2,
    "sort": lambda xp, x: xp.sort(x)[1:3] ** 2,
    "real": lambda xp, x: xp.real(x) ** 2,
    "conj": lambda xp, x: xp.conj(x) * x,
    "atan2": lambda xp, x: xp.atan2(x, x * x),
    "hypot": lambda xp, x: xp.hypot(x, 1.0 + x * x),
    "logaddexp": lambda xp, x: xp.logaddexp(x, x * x),
    "remainder": lambda xp, x: xp.remainder(x, 0.3) ** 2,
}


@pytest.mark.parametrize("name", sorted(KINKED))
@pytest.mark.parametrize("array_module", ["numpy", "torch", "jax.numpy"])
def test_extended_by_the_real_part(name, array_module):
    module = pytest.importorskip(array_module)
    if array_module == "torch" and name == "1-norm":
        pytest.skip("its autodiff takes |x| of the norm in another order")

    def fun(x):
        xp = namespace(x)
        if name == "remainder" and array_module == "torch":
            return xp.sum(xp.remainder(x, xp.asarray(0.3, dtype=xp.float64)) ** 2)
        return xp.sum(KINKED[name](xp, x))

    x = module.asarray(np.array([-1.5, 0.7, 0.2, 2.5, -0.3]))
    v = module.asarray(np.array([1.0, -2.0, 0.5, 3.0, 1.5]))
    expected = osculant.oracle(fun, x).at(x).hvp(v)
    found = osculant.oracle(fun, x, products="complex-step").at(x).hvp(v)
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("upper", [False, True])
def test_a_cholesky_factor_is_extended(upper):
    def fun(x):
        A = x.reshape(3, 3)
        return np.sum(np.sin(np.linalg.cholesky(A @ A.T + np.eye(3), upper=upper)))

    x, v = np.cos(np.arange(9.0)), np.sin(np.arange(9.0))
    exact = osculant.oracle(fun, x).at(x)
    stepped = osculant.oracle(fun, x, products="complex-step").at(x)
    np.testing.assert_allclose(stepped.hvp(v), exact.hvp(v), rtol=1e-13, atol=1e-13)
    h = 1e-5
    along = [osculant.oracle(fun, x).at(x + t * v).vhv(v) for t in (h, -h)]
    assert stepped.third(v) == pytest.approx((along[0] - along[1]) / (2 * h), rel=1e-7)


@pytest.mark.parametrize(
    "fun",
    [
        lambda x: np.sum(np.maximum(x, 0.0)),
        lambda x: np.sum(abs(x)),
        lambda x: np.linalg.norm(x),
        lambda x: np.std(x),
    ],
)
def test_a_kink_has_autodiffs_derivative(fun):
    """At the kink itself the step takes the same subgradient, not that of one side."""
    x, v = np.zeros(3), np.array([1.0, -2.0, 3.0])
    jacobian = {"model": lambda x: fun(x).reshape(1), "loss": lambda z: z.sum()}
    expected = osculant.oracle(**jacobian, params=x).at(x).jvp(v)
    found = osculant.oracle(**jacobian, params=x, products="complex-step").at(x).jvp(v)
    np.testing.assert_array_equal(found, expected)


def test_the_imaginary_unit_is_told_from_a_step():
    with pytest.raises(osculant.NotDifferentiable):
        x = np.ones(2)
        _ = osculant.oracle(lambda x: np.sum(x * 1j), x, products="complex-step").at(x).value


# The user's own gradient --------------------------------------------------------------------


def quartic(x):
    return np.sum(x**4) / 4 + np.sum(x) ** 2


def quartic_gradient(x):
    return x**3 + 2 * np.sum(x)


X, V = np.array([1.0, -2.0, 0.5]), np.array([0.3, 1.0, -1.0])
HV = 3 * X**2 * V + 2 * np.sum(V)


def test_exact_products_of_a_gradient_written_by_hand():
    oracle = osculant.oracle(quartic, X, grad=quartic_gradient, products="complex-step")
    np.testing.assert_allclose(oracle.at(X).hvp(V), HV, rtol=1e-15)
    np.testing.assert_allclose(oracle.at(X).hvp(np.eye(3)) @ V, HV, rtol=1e-14)
    float32 = osculant.oracle(
        quartic, X.astype("f"), grad=quartic_gradient, products="complex-step"
    )
    hvp = float32.at(X.astype("f")).hvp(V.astype("f"))
    assert hvp.dtype == np.float32
    np.testing.assert_allclose(hvp, HV, rtol=2e-6)


def test_a_step_that_is_too_long_is_seen():
    oracle = osculant.oracle(quartic, X, grad=quartic_gradient, products=ComplexStep(h=1e-2))
    with pytest.raises(NotAnalytic):
        oracle.check_analytic(X, rtol=1e-6)
    assert np.max(np.abs(oracle.at(X).hvp(V) - HV)) > 1e-5


def test_nothing_is_traced_and_the_function_may_return_a_float():
    def value(x):
        assert type(x) is np.ndarray
        return float(quartic(x))

    oracle = osculant.oracle(None, X, value=value, grad=quartic_gradient, products="complex-step")
    point = oracle.at(X)
    assert point.value == quartic(X)
    np.testing.assert_allclose(point.hvp(V), HV, rtol=1e-15)


def test_differences_of_a_gradient_written_by_hand():
    calls = []

    def grad(x):
        calls.append(x.dtype)
        return quartic_gradient(x)

    oracle = osculant.oracle(quartic, X, grad=grad, products="finite-difference")
    np.testing.assert_allclose(oracle.at(X).hvp(V), HV, rtol=1e-8)
    assert calls == [np.float64] * 2


def test_without_a_gradient_there_are_n_complex_evaluations_and_no_hessian():
    calls = []

    def value(x):
        calls.append(x)
        return quartic(x)

    oracle = osculant.oracle(x0=X, value=value, products="complex-step")
    np.testing.assert_allclose(oracle.at(X).grad, quartic_gradient(X), rtol=1e-15)
    assert len(calls) == X.size
    with pytest.raises(ProductUnavailable, match="give grad="):
        oracle.at(X).hvp(V)


@pytest.mark.parametrize(
    ("gradient", "match"),
    [
        (lambda x: np.conj(x) ** 3, "conj"),
        (lambda x: x.real**3, "real"),
        (lambda x: np.angle(x), "angle"),
        (lambda x: np.vdot(x, x) * x, "do not conjugate"),
        (lambda x: x * np.linalg.norm(x), "numpy.sqrt"),
        (lambda x: np.abs(np.asarray(x)), "lost"),
        (lambda x: np.arctan2(x, 1.0), "not supported"),
        (lambda x: np.array([float(t) for t in x]), "complex"),
        (lambda x: x.astype(float), "discards"),
    ],
)
def test_what_cannot_be_extended_raises(gradient, match):
    oracle = osculant.oracle(quartic, X, grad=gradient, products="complex-step")
    with pytest.raises(NotAnalytic, match=match):
        oracle.at(X).hvp(V)


def test_work_arrays_of_a_real_dtype_raise():
    def gradient(x):
        g = np.zeros(3)
        g[:] = quartic_gradient(x)
        return g

    oracle = osculant.oracle(quartic, X, grad=gradient, products="complex-step")
    with pytest.raises(NotAnalytic, match="zeros_like"):
        oracle.at(X).hvp(V)


def test_a_gradient_by_branches_is_extended():
    def gradient(x):
        return np.where(abs(x) > 1.0, np.maximum(x, -3.0), np.sign(x) * abs(x))

    oracle = osculant.oracle(quartic, X, grad=gradient, products="complex-step")
    np.testing.assert_allclose(oracle.at(X).hvp(V), V, rtol=1e-15)


def test_check_analytic_names_the_worst_coordinate():
    def fun(params):
        return np.sum(params["a"] ** 2) + np.sum(params["b"] ** 3)

    def grad(params):
        b = np.array(params["b"])
        g = 3 * b**2
        g[1] = 3 * b[1].real ** 2  # loses the derivative, where nobody sees it
        return {"a": 2 * params["a"], "b": g}

    params = {"a": np.ones(2), "b": np.array([1.0, 2.0, 3.0])}
    oracle = osculant.oracle(fun, params, grad=grad, products="complex-step")
    with pytest.raises(NotAnalytic, match=r"hvp, most at entry 1 of 'b'"):
        oracle.check_analytic(oracle.ravel(params))
    right = osculant.oracle(
        fun,
        params,
        grad=lambda p: {"a": 2 * p["a"], "b": 3 * p["b"] ** 2},
        products="complex-step",
    )
    assert right.check_analytic(right.ravel(params)).error < 1e-6


def test_the_adjoint_example():
    path = Path(__file__).parents[1] / "examples" / "adjoint.py"
    spec = importlib.util.spec_from_file_location("adjoint", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    solution = example.solve()
    assert solution.success
    assert solution.nit < 20
    assert np.max(np.abs(example.gradient(solution.x))) <= 1e-10


# Overriding product by product ---------------------------------------------------------------


def test_each_product_can_be_the_users_own():
    def model(params):
        return params["w"] * params["w"]

    def loss(z):
        return np.sum(z**2) / 2

    params = {"w": np.array([1.0, 2.0])}
    marks = {
        "value": lambda p: np.array(1.0),
        "grad": lambda p: {"w": p["w"] + 1},
        "hvp": lambda p, v: {"w": v["w"] + 2},
        "vhv": lambda p, v: np.sum(v["w"]) + 3,
        "ggn": lambda p, v: {"w": v["w"] + 4},
        "vgv": lambda p, v: np.sum(v["w"]) + 5,
        "jvp": lambda p, v: v["w"] + 6,
        "vjp": lambda p, u: {"w": u + 7},
        "loss_hvp": lambda p, u: u + 8,
    }
    v = np.array([1.0, 3.0])
    expected = {
        "value": 1.0, "grad": [2.0, 3.0], "hvp": v + 2, "vhv": 7.0, "ggn": v + 4, "vgv": 9.0,
        "jvp": v + 6, "vjp": v + 7, "loss_hvp": v + 8,
    }  # fmt: skip
    plain = osculant.oracle(model=model, loss=loss, params=params).at(params["w"])
    for name, function in marks.items():
        oracle = osculant.oracle(model=model, loss=loss, params=params, **{name: function})
        point = oracle.at(params["w"])
        for other in {*expected, "outputs"} - {"value", "grad", "outputs"}:
            if other == name:
                np.testing.assert_array_equal(getattr(point, other)(v), expected[other])
                both = getattr(point, other)(np.stack([v, v], axis=1))
                np.testing.assert_array_equal(both[..., 0], expected[other])
        for other in {"value", "grad"}:
            wanted = expected[other] if other == name else getattr(plain, other)
            np.testing.assert_array_equal(getattr(point, other), wanted)
    composed = osculant.oracle(
        model=model, loss=loss, params=params, jvp=marks["jvp"], vjp=marks["vjp"]
    ).at(params["w"])
    np.testing.assert_array_equal(composed.ggn(v), v + 13)  # H_L = I


def test_functions_by_hand_are_enough_and_none_is_traced():
    def value(x):
        return quartic(np.asarray(x))  # a traced array would raise

    def hvp(x, v):
        return 3 * x**2 * v + 2 * np.sum(v)

    whole = osculant.oracle(x0=X, value=value, grad=quartic_gradient, hvp=hvp)
    assert whole.products == {Product.GRAD, Product.HVP, Product.VHV}
    assert osculant.minimize(whole, X, method="trust-region").success
    assert osculant.minimize(osculant.oracle(x0=X, value=value, grad=quartic_gradient), X).success
    with pytest.raises(ProductUnavailable, match=r"needs grad.*finite-difference.*has: nothing"):
        osculant.minimize(osculant.oracle(x0=X, value=value), X)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"products": "magic"}, ValueError, "autodiff, complex-step, finite-difference"),
        ({"gradient": quartic_gradient}, TypeError, "has no argument 'gradient'"),
        ({"grad": 3.0}, TypeError, "a function is needed"),
        ({"jvp": lambda x, v: v}, TypeError, "give model= and loss="),
    ],
)
def test_bad_options(options, error, match):
    with pytest.raises(error, match=match):
        osculant.oracle(quartic, X, **options)


def test_a_result_of_the_wrong_shape():
    oracle = osculant.oracle(quartic, X, grad=lambda x: x[:2])
    with pytest.raises(ValueError, match="shape"):
        _ = oracle.at(X).grad


# All together --------------------------------------------------------------------------------


@pytest.mark.parametrize("products", ["complex-step", "finite-difference"])
@pytest.mark.parametrize("solver", [osculant.TrustRegion(), osculant.NewtonKrylov()])
def test_solvers_run(support, solver, products):
    if support.name == "array-api-strict":
        pytest.skip("its booleans and ours do not mix: solvers do not run on it")
    if support.name == "JAX" and products == "finite-difference":
        pytest.skip("compiling takes long")
    inputs = support.convert(np.linspace(-1.0, 1.0, 16).reshape(8, 2))
    targets = support.convert(np.linspace(0.0, 0.5, 8))

    def model(w, inputs):
        xp = namespace(w)
        return xp.tanh(xp.sum(w * inputs, axis=1))

    def loss(z, targets):
        return namespace(z).mean((z - targets) ** 2)

    w = support.convert(np.array([0.3, -0.2]))
    oracle = osculant.oracle(model=model, loss=loss, params=w, products=products)
    solution = osculant.minimize(oracle, w, args=(inputs, targets), method=solver, maxiter=50)
    reference = osculant.minimize(
        osculant.oracle(model=model, loss=loss, params=w), w, args=(inputs, targets), tol=1e-9
    )
    assert float(solution.fun) == pytest.approx(float(reference.fun), abs=1e-4)


def test_a_torch_module():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    nn = torch.nn
    layers = [nn.Linear(3, 5), nn.ELU(), nn.Linear(5, 5), nn.Softplus(), nn.Linear(5, 4)]
    net = nn.Sequential(*layers, nn.ReLU(), nn.Linear(4, 3)).double()
    inputs = torch.linspace(-2, 2, 30, dtype=torch.float64).reshape(10, 3)
    labels = torch.arange(10) % 3
    composition = {"model": net, "loss": nn.functional.cross_entropy}
    exact = osculant.oracle(**composition)
    stepped = osculant.oracle(**composition, products="complex-step")
    x = exact.ravel(dict(net.named_parameters()))
    v = torch.cos(torch.arange(x.numel(), dtype=x.dtype))
    one, other = exact.at(x, inputs, labels), stepped.at(x, inputs, labels)
    for product in ("hvp", "ggn"):
        expected = getattr(one, product)(v)
        torch.testing.assert_close(getattr(other, product)(v), expected, rtol=1e-12, atol=1e-14)
    normed = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 3)).double()
    stepped = osculant.oracle(
        model=normed, loss=nn.functional.cross_entropy, products="complex-step"
    )
    x = stepped.ravel(dict(normed.named_parameters()))
    with pytest.raises(NotAnalytic, match="layer_norm"):
        stepped.at(x, inputs, labels).hvp(x)


PRODUCTS = {
    "matmul": lambda torch, A, B: A @ B,
    "mm": lambda torch, A, B: torch.mm(A, B),
    "bmm": lambda torch, A, B: torch.bmm(A[None], B[None]),
    "mv": lambda torch, A, B: torch.mv(A, B[:, 0]),
    "dot": lambda torch, A, B: torch.dot(A[0], B[:, 1]),
    "inner": lambda torch, A, B: torch.inner(A, B.mT),
    "outer": lambda torch, A, B: torch.outer(A[0], B[0]),
    "tensordot": lambda torch, A, B: torch.tensordot(A, B, dims=1),
    "addmm": lambda torch, A, B: torch.addmm(A[:, :2], A, B),
    "linear": lambda torch, A, B: torch.nn.functional.linear(A, B.mT, A[0, :2]),
    "einsum": lambda torch, A, B: torch.einsum("ij,jk->ki", A, B),
    "einsum of three": lambda torch, A, B: torch.einsum("ij,jk,kl->il", A, B, A),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_pytorch(name):
    """Of the parameters with data, on either side, and with one another."""
    torch = pytest.importorskip("torch")
    x = torch.linspace(-1.0, 1.0, 6, dtype=torch.float64)

    def fun(x, data):
        A, B = x.reshape(2, 3), torch.cos(x).reshape(3, 2)
        pairs = [(A, data), (data.mT, B), (A, B)]
        return sum(torch.sin(PRODUCTS[name](torch, *pair)).sum() for pair in pairs)

    data = torch.arange(6, dtype=torch.float64).reshape(3, 2)
    exact, stepped = (
        osculant.oracle(fun, x, products=products).at(x, data).hvp(torch.exp(x))
        for products in ("autodiff", "complex-step")
    )
    torch.testing.assert_close(stepped, exact, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("layer", ["BatchNorm1d", "LayerNorm"])
def test_torchs_fused_norms_have_no_third_derivative(layer):
    """PyTorch's own is wrong: differences of its Hessian products say so."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    net = nn.Sequential(nn.Linear(3, 4), getattr(nn, layer)(4), nn.Tanh()).double()
    oracle = osculant.oracle(model=net, loss=nn.functional.mse_loss)
    x = oracle.ravel(dict(net.named_parameters()))
    inputs = torch.cos(torch.arange(15.0, dtype=torch.float64)).reshape(5, 3)
    point = oracle.at(x, inputs, torch.zeros(5, 4, dtype=torch.float64))
    v = torch.ones_like(x)
    assert torch.isfinite(point.hvp(v)).all()
    for ask in (lambda: point.third(v), lambda: point.dhvp(v, v), lambda: point.taylor(v, 4)):
        with pytest.raises(osculant.NotDifferentiable, match=r"osculant\.ops\.(batch|layer)_norm"):
            ask()

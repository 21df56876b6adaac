# ruff: noqa: E402  (the framework may be missing: nothing after it is imported then)
import gc
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils.flop_counter import FlopCounterMode

import osculant
from osculant import NotDifferentiable, Product, ProductUnavailable
from osculant.backends import torch_backend
from osculant.core.oracle import Point

LINEAR = [Product.HVP, Product.GGN, Product.JVP, Product.VJP, Product.LOSS_HVP]
OF_OUTPUTS = [Product.VJP, Product.LOSS_HVP]


def model(params, A):
    x = torch.cat([params["a"].reshape(-1), params["b"].reshape(1), params["c"][0]])
    return A @ x**2


def loss(z, weights):
    return (weights["c"] * z**4).sum() / 12 + (weights["s"] @ z) ** 2 / 2


def fun(params, A, weights):
    return loss(model(params, A), weights)


def tensors(tree):
    if isinstance(tree, dict):
        return {key: tensors(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(tensors(value) for value in tree)
    return torch_backend.from_numpy(np.asarray(tree))


def composite_oracle(composition):
    return osculant.oracle(model=model, loss=loss, params=tensors(composition.params))


def close(actual, expected, **tol):
    np.testing.assert_allclose(actual.numpy(), expected, **tol)


def oracle(fun, *shape):
    return osculant.oracle(fun, torch.zeros(shape, dtype=torch.float64))


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


# Closed forms ----------------------------------------------------------------------------------


def test_products_of_a_composition(composition):
    oracle = composite_oracle(composition)
    x = oracle.ravel(tensors(composition.params))
    close(x, composition.x)
    assert list(oracle.groups) == ["a", "b", "c.0"]
    point = oracle.at(x, *tensors(composition.data))
    dense, tol = composition.dense, composition.tol
    close(point.value, dense.value, **tol)
    close(oracle.value(x, *tensors(composition.data)), dense.value, **tol)
    close(point.grad, dense.grad, **tol)
    close(point.outputs, dense.outputs, **tol)
    for product in LINEAR:
        V = composition.U if product in OF_OUTPUTS else composition.V
        matrix = getattr(dense, product)
        both = getattr(point, product)(torch.tensor(V))
        one = getattr(point, product)(torch.tensor(V[:, 1]))
        close(both, matrix @ V, err_msg=product, **tol)
        close(one, matrix @ V[:, 1], err_msg=product, **tol)
        assert both.dtype == one.dtype == x.dtype
        assert both.is_contiguous() and not both.requires_grad and not one.requires_grad
    V = composition.V
    close(point.vhv(torch.tensor(V)), np.sum(V * (dense.hvp @ V), axis=0), **tol)
    close(point.vgv(torch.tensor(V)), np.sum(V * (dense.ggn @ V), axis=0), **tol)


def test_products_of_a_plain_function(composition):
    oracle = osculant.oracle(fun, tensors(composition.params))
    point = oracle.at(torch.tensor(composition.x), *tensors(composition.data))
    close(point.value, composition.dense.value, **composition.tol)
    close(point.grad, composition.dense.grad, **composition.tol)
    V = composition.V
    close(point.hvp(torch.tensor(V)), composition.dense.hvp @ V, **composition.tol)
    with pytest.raises(ProductUnavailable, match="model="):
        point.ggn(torch.tensor(V))
    with pytest.raises(ProductUnavailable, match="model="):
        _ = point.outputs


@pytest.mark.parametrize("shape", [(1,), (), (2, 0, 3), (1, 1)])
def test_awkward_shapes(shape):
    p = oracle(lambda x: (x**4).sum() / 12, *shape).at(x := random(int(np.prod(shape))))
    close(p.grad, x**3 / 3)
    close(p.hvp(torch.ones_like(x)), x**2)
    assert p.hvp(torch.ones_like(x)[:, None]).shape == (x.numel(), 1)


def test_empty_batch():
    oracle = osculant.oracle(
        model=lambda w, X: X @ w, loss=lambda z, y: ((z - y) ** 2).sum(), params=random(3)
    )
    p = oracle.at(random(3), random(0, 3), random(0))
    v = random(3)
    assert p.outputs.shape == p.jvp(v).shape == (0,)
    for answer in (p.grad, p.hvp(v), p.ggn(v), p.vjp(random(0))):
        close(answer, np.zeros(3))


def test_a_linear_loss_has_no_curvature_but_its_model_has():
    c = random(4, seed=1)
    x, v, A = random(3), random(3, seed=2), random(4, 3, seed=3)
    p = osculant.oracle(model=lambda x: A @ x**2, loss=lambda z: c @ z, params=x).at(x)
    close(p.jvp(v), A @ (2 * x * v), rtol=1e-12)
    close(p.hvp(v), 2 * (A.T @ c) * v, rtol=1e-12)
    close(p.loss_hvp(c), np.zeros(4))
    close(p.ggn(v), np.zeros(3))


def test_a_model_that_returns_its_parameters():
    x, v = random(3), random(3, seed=1)
    p = osculant.oracle(model=lambda x: x, loss=lambda z: (z**4).sum() / 12, params=x).at(x)
    for answer in (p.jvp(v), p.vjp(v)):
        close(answer, v)
        answer.zero_()
    assert v.abs().max() > 0
    for answer in (p.hvp(v), p.ggn(v), p.loss_hvp(v)):
        close(answer, x**2 * v, rtol=1e-12)


class HalfSquare(torch.autograd.Function):
    """|z|^2 / 2, whose gradient is the very tensor z."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return (z * z).sum() / 2

    @staticmethod
    def backward(ctx, t):
        (z,) = ctx.saved_tensors
        return z if t == 1 else t * z


def test_a_loss_that_hands_its_argument_back_as_gradient():
    x, v = random(3), random(3, seed=1)
    p = osculant.oracle(model=torch.tanh, loss=HalfSquare.apply, params=x).at(x)
    J = 1 - torch.tanh(x) ** 2
    close(p.jvp(v), J * v, rtol=1e-12)
    close(p.hvp(v), (J**2 - 2 * torch.tanh(x) ** 2 * J) * v, rtol=1e-12)


def test_parameters_that_take_no_part_have_zero_derivatives():
    params = {"used": random(2), "unused": random(2)}
    o = osculant.oracle(lambda p: (p["used"] ** 2).sum(), params)
    p = o.at(o.ravel(params))
    v = torch.ones(4, dtype=torch.float64)
    close(o.unravel(p.grad)["unused"], np.zeros(2))
    close(o.unravel(p.hvp(v))["unused"], np.zeros(2))
    linear = oracle(lambda x: x.sum(), 3).at(random(3))
    close(linear.hvp(random(3)), np.zeros(3))
    close(linear.hvp(random(3, 2)), np.zeros((3, 2)))
    weights = random(3).requires_grad_()
    close(oracle(lambda x, w: w.sum(), 3).at(random(3), weights).hvp(random(3)), np.zeros(3))


# Manners ---------------------------------------------------------------------------------------


def test_arguments_are_not_touched_and_results_are_fresh(composition):
    oracle = composite_oracle(composition)
    params, data = tensors(composition.params), tensors(composition.data)
    params["a"].requires_grad_()
    x = oracle.ravel(params)
    assert not x.requires_grad
    point = oracle.at(x, *data)
    V, U = torch.tensor(composition.V), torch.tensor(composition.U)

    def answers():
        products = [getattr(point, p)(U if p in OF_OUTPUTS else V) for p in LINEAR]
        return [point.value, point.grad, point.outputs, oracle.value(x, *data), *products]

    first = answers()
    kept = [answer.clone() for answer in first]
    for answer in first:
        answer.fill_(torch.nan)
    for answer, before in zip(answers(), kept, strict=True):
        assert torch.equal(answer, before)
    close(x, composition.x)
    close(V, composition.V)
    close(data[0], composition.data[0])
    assert params["a"].grad is None


def test_results_have_no_graph_even_if_arguments_do():
    x, v = random(3).requires_grad_(), random(3).requires_grad_()
    o = osculant.oracle(model=torch.sin, loss=lambda z: (z**2).sum(), params=x)
    p = o.at(x)
    answers = [o.value(x), p.value, p.grad, p.hvp(v), p.ggn(v), p.jvp(v), p.vjp(v), p.vgv(v)]
    assert [answer.requires_grad for answer in answers] == [False] * 8
    assert x.grad is None and v.grad is None


def test_value_records_no_graph():
    modes = []

    def fun(x):
        modes.append(torch.is_grad_enabled())
        return (x**2).sum()

    oracle(fun, 3).value(random(3))
    oracle(fun, 3).at(random(3))
    assert modes == [False, True]


def test_value_is_not_a_view_of_the_parameters():
    x = random(2)
    kept = x.clone()
    o = oracle(lambda x: x[0], 2)
    o.value(x).zero_()
    o.at(x).value.zero_()
    assert torch.equal(x, kept)


def test_a_point_outlives_its_parameters(composition):
    oracle = composite_oracle(composition)
    x, data = torch.tensor(composition.x), tensors(composition.data)
    V = torch.tensor(composition.V)
    point = oracle.at(x, *data)
    x.zero_()
    oracle.at(x, *data).hvp(V)
    close(point.grad, composition.dense.grad, **composition.tol)
    close(point.hvp(V), composition.dense.hvp @ composition.V, **composition.tol)
    close(point.ggn(V), composition.dense.ggn @ composition.V, **composition.tol)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_differentiates_where_the_caller_does_not(mode):
    o = osculant.oracle(model=torch.sin, loss=lambda z: (z**2).sum(), params=random(3))
    x = random(3)
    v = torch.ones_like(x)
    with mode():
        p = o.at(random(3))
        grad, hvp, ggn, columns = p.grad, p.hvp(v), p.ggn(v), p.hvp(v[:, None])
        assert torch.is_grad_enabled() is False
    close(grad, torch.sin(2 * x), rtol=1e-12)
    close(hvp, 2 * torch.cos(2 * x), rtol=1e-12)
    close(columns[:, 0], hvp)
    close(ggn, 2 * torch.cos(x) ** 2, rtol=1e-12)


class Token:
    pass


class Traceable(torch.autograd.Function):
    """x^3, leaving something in the graph that can be watched."""

    watched: weakref.ref

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.token = Token()
        Traceable.watched = weakref.ref(ctx.token)
        return x**3

    @staticmethod
    def backward(ctx, t):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * t


def test_the_graph_dies_with_the_point():
    o = osculant.oracle(model=Traceable.apply, loss=lambda z: (z**2).sum(), params=random(3))
    gc.collect()
    gc.disable()
    try:
        p = o.at(random(3))
        p.grad, p.hvp(random(3)), p.ggn(random(3, 2))
        leaf = weakref.ref(p._leaves[0])
        assert Traceable.watched() is not None
        del p
        assert Traceable.watched() is None
        assert leaf() is None
    finally:
        gc.enable()


# Many vectors at once --------------------------------------------------------------------------


def test_columns_are_vectorised(monkeypatch):
    def one_by_one(*_):
        raise AssertionError("not vectorised")

    monkeypatch.setattr(Point, "_columns", one_by_one)
    p = oracle(lambda x: (x**4).sum() / 12, 3).at(x := random(3))
    close(p.hvp(V := random(3, 2)), x[:, None] ** 2 * V, rtol=1e-12)


class DataDependent(torch.autograd.Function):
    """x^2, with a derivative that vmap cannot trace."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, t):
        (x,) = ctx.saved_tensors
        if bool((t > 1e300).any()):
            raise OverflowError
        return 2 * x * t


def test_columns_go_one_by_one_where_vmap_cannot():
    p = oracle(lambda x: DataDependent.apply(DataDependent.apply(x)).sum(), 3).at(x := random(3))
    close(p.hvp(V := random(3, 2)), 12 * x[:, None] ** 2 * V, rtol=1e-12)


def test_other_errors_are_not_swallowed(monkeypatch):
    p = oracle(lambda x: (x**2).sum(), 3).at(random(3))

    def out_of_memory(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch, "vmap", out_of_memory)
    with pytest.raises(RuntimeError, match="out of memory"):
        p.hvp(random(3, 2))


# Cost ------------------------------------------------------------------------------------------

LAYERS, WIDTH, BATCH = 24, 16, 8
FORWARD = LAYERS * 2 * WIDTH * WIDTH * BATCH


def mlp(weights, X):
    for W in weights:
        X = torch.tanh(X @ W)
    return X


def mse(z, y):
    return ((z - y) ** 2).mean()


def forwards(action):
    with FlopCounterMode(display=False) as counter:
        action()
    return counter.get_total_flops() / FORWARD


@pytest.mark.parametrize("composite", [True, False])
def test_cost_in_forward_passes(composite):
    weights = [random(WIDTH, WIDTH, seed=i) / WIDTH**0.5 for i in range(LAYERS)]
    data = random(BATCH, WIDTH), random(BATCH, WIDTH, seed=1)
    if composite:
        o = osculant.oracle(model=mlp, loss=mse, params=weights)
    else:
        o = osculant.oracle(lambda w, X, y: mse(mlp(w, X), y), weights)
    x = o.ravel(weights)
    v = random(x.numel())
    points = []
    assert forwards(lambda: o.value(x, *data)) == 1
    assert forwards(lambda: points.append(o.at(x, *data))) == 1
    p = points[0]
    assert 1.9 < forwards(lambda: p.grad) <= 2
    assert forwards(lambda: (p.grad, p.value)) == 0
    assert 5 < forwards(lambda: p.hvp(v)) <= 6
    assert forwards(lambda: p.vhv(v)) <= 6
    if composite:
        assert 3 < forwards(lambda: p.ggn(v)) <= 4
        assert 1 < forwards(lambda: p.vgv(v)) <= 2


# What cannot be differentiated -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("fun", "error", "message"),
    [
        (lambda x: (x**2).sum().detach(), NotDifferentiable, "detach"),
        (lambda x: torch.ones((), dtype=x.dtype), NotDifferentiable, "does not depend"),
        (lambda x: float(x.detach().sum()), TypeError, "float"),
        (lambda x: x**2, ValueError, r"shape \(3,\)"),
        (lambda x: (x**2).sum().float(), TypeError, "float32"),
    ],
)
def test_what_a_function_must_return(fun, error, message):
    with pytest.raises(error, match=message):
        oracle(fun, 3).at(random(3))


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (lambda x: x.detach(), NotDifferentiable, "model"),
        (lambda x: (x, x), TypeError, "one array"),
        (lambda x: x.float(), TypeError, "model returned torch.float32"),
    ],
)
def test_what_a_model_must_return(model, error, message):
    o = osculant.oracle(model=model, loss=lambda z: (z**2).sum(), params=random(3))
    with pytest.raises(error, match=message):
        o.at(random(3))


def test_a_detached_loss_is_named():
    o = osculant.oracle(model=torch.sin, loss=lambda z: z.detach().sum(), params=random(3))
    with pytest.raises(NotDifferentiable, match="loss returned"):
        o.at(random(3))


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, t):
        return 2 * ctx.saved_tensors[0] * t


@pytest.mark.parametrize(
    "fun", [lambda x: Once.apply(x).sum(), lambda x: Once.apply(x.sin()).sum()]
)
def test_once_differentiable_functions_have_gradients_only(fun):
    p = oracle(fun, 3).at(random(3))
    assert p.grad.isfinite().all()
    with pytest.raises(NotDifferentiable, match="once_differentiable"):
        p.hvp(random(3))
    with pytest.raises(NotDifferentiable, match="once_differentiable"):
        p.hvp(random(3, 2))


def test_a_once_differentiable_loss_is_refused_by_every_half_of_gauss_newton():
    o = osculant.oracle(model=torch.sin, loss=lambda z: Once.apply(z).sum(), params=random(3))
    p = o.at(random(3))
    for product in (p.ggn, p.jvp, p.loss_hvp):
        with pytest.raises(NotDifferentiable, match="once_differentiable"):
            product(random(3))


def test_kernels_without_second_derivative_are_named():
    attention = torch.nn.functional.scaled_dot_product_attention
    p = oracle(lambda q: attention(q, q, q).pow(2).sum(), 1, 2, 8, 16).at(random(256))
    assert p.grad.isfinite().all()
    with pytest.raises(NotDifferentiable, match="sdpa_kernel"):
        p.hvp(random(256))


def test_points_of_other_frameworks_shapes_and_dtypes_are_refused():
    o = oracle(lambda x: (x**2).sum(), 3)
    for evaluate in (o.at, o.value):
        with pytest.raises(TypeError, match="numpy"):
            evaluate(np.zeros(3))
        with pytest.raises(ValueError, match=r"\(3,\)"):
            evaluate(random(4))
        with pytest.raises(TypeError, match="float32"):
            evaluate(random(3).float())


# Modules ---------------------------------------------------------------------------------------


def test_a_module_is_a_function_of_its_parameters():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh()).double()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    o = osculant.oracle(model=net, loss=torch.nn.MSELoss())
    assert list(o.groups) == ["0.bias", "0.weight"]
    X, y = random(5, 3), random(5, 2, seed=1)
    x = o.ravel(dict(net.named_parameters())) + 1
    p = o.at(x, X, y)
    moved = o.unravel(x)
    z = torch.tanh(X @ moved["0.weight"].T + moved["0.bias"])
    close(p.outputs, z.reshape(-1), rtol=1e-12)
    close(p.value, ((z - y) ** 2).mean(), rtol=1e-12)
    v = random(8, seed=2)
    close(p.loss_hvp(p.jvp(v)), p.jvp(v) * 2 / 10, rtol=1e-12)
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, before[name]) and parameter.grad is None


def test_frozen_parameters_are_used_and_not_optimised():
    net = torch.nn.Linear(3, 1).double()
    net.bias.requires_grad_(False).fill_(7.0)
    o = osculant.oracle(model=net, loss=lambda z, y: (z - y).sum())
    assert list(o.groups) == ["weight"]
    zero = torch.zeros(3, dtype=torch.float64)
    assert o.value(zero, random(1, 3), zero[:1]).item() == 7.0
    assert o.at(zero, random(1, 3), zero[:1]).grad.shape == (3,)


def test_tied_weights_are_one_parameter():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False))
    net = net.double()
    net[1].weight = net[0].weight
    o = osculant.oracle(model=net, loss=lambda z, y: ((z - y) ** 2).sum() / 2)
    x, X, y = random(4), random(3, 2), random(3, 2, seed=1)
    W = x.reshape(2, 2)
    p = o.at(x, X, y)
    z = X @ W.T @ W.T
    close(p.outputs, z.reshape(-1), rtol=1e-12)
    close(p.grad, (W.T @ (z - y).T @ X + (z - y).T @ X @ W.T).reshape(-1), rtol=1e-12)


def test_running_statistics_are_left_alone():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).double().train()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    o = osculant.oracle(model=net, loss=torch.nn.MSELoss())
    x = o.ravel(dict(net.named_parameters()))
    data = random(5, 3), random(5, 4)
    p = o.at(x, *data)
    p.hvp(random(o.size))
    close(o.value(x, *data), p.value.item())
    assert len(before) == 3
    for name, buffer in net.named_buffers():
        assert torch.equal(buffer, before[name])


def test_current_buffers_count():
    net = torch.nn.BatchNorm1d(2, affine=True).double().eval()
    o = osculant.oracle(model=net, loss=lambda z, y: (z - y).sum())
    x = o.ravel(dict(net.named_parameters()))
    X = random(4, 2)
    first = o.value(x, X, 0 * X)
    net.running_mean.fill_(3.0)
    assert abs(o.value(x, X, 0 * X) - first) > 1


def test_a_modules_parameters_go_by_name():
    net = torch.nn.Linear(3, 1)
    with pytest.raises(ValueError, match="'wieght'"):
        osculant.oracle(model=net, loss=torch.sum, params={"wieght": torch.zeros(1, 3)})
    with pytest.raises(TypeError, match="mapping"):
        osculant.oracle(model=net, loss=torch.sum, params=list(net.parameters()))


# The module's own functions --------------------------------------------------------------------


def test_conversion_copies_and_keeps_the_dtype():
    for dtype in (np.float32, np.float64, np.int64, np.int32, np.bool_):
        array = np.ones((2, 3), dtype=dtype)
        tensor = torch_backend.from_numpy(array)
        tensor[0] = 0
        back = torch_backend.to_numpy(tensor)
        tensor[:] = 0
        assert array.all() and back[1].all() and back.dtype == dtype
    assert torch_backend.to_numpy(torch.ones(2, requires_grad=True)).tolist() == [1, 1]


def test_version_and_devices():
    assert torch_backend.version() == torch.__version__
    assert torch_backend.devices()[0] == "cpu"


def test_function_that_overwrites_its_argument_does_not_overwrite_the_vector():
    def fun(x):
        return x.mul_(2.0).sum()

    x = torch.ones(3, dtype=torch.float64)
    oracle = osculant.oracle(lambda x: x.sum(), x)
    oracle.objective = osculant.Objective(fun)
    assert float(oracle.value(x)) == 6.0
    assert x.tolist() == [1.0, 1.0, 1.0]

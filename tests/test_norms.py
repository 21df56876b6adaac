"""The ellipsoids: their matrices, and the first-order view of Kohler et al., equations 5 and 6."""

import numpy as np
import pytest

from osculant.core.norms import Adagrad, Adam, Preconditioner, RMSProp, Spherical, length

RNG = np.random.default_rng(0)
GRADIENTS = RNG.normal(size=(5, 4))
ADAPTIVE = [
    make(full=full, power=power)
    for make in (Adagrad, RMSProp, Adam)
    for full in (False, True)
    for power in (0.5, 1.0)
]
ALL = [Spherical(), *ADAPTIVE, Preconditioner(diagonal=np.array([1.0, 2.0, 3.0, 4.0]))]


def after(norm, gradients):
    state = norm.init(gradients[0])
    for g in gradients:
        state = norm.update(state, g)
    return state


def dense(norm, state):
    return np.stack([norm.apply(state, e) for e in np.eye(4)], axis=1)


def matrix(norm):
    """Return A by the definition."""
    t = len(GRADIENTS)
    weights = np.ones(t)
    if not isinstance(norm, Adagrad):
        weights = (1 - norm.decay) * norm.decay ** np.arange(t - 1, -1, -1)
    if isinstance(norm, Adam):
        weights = weights / (1 - norm.decay**t)
    V = GRADIENTS.T @ np.diag(weights) @ GRADIENTS
    if not norm.full:
        V = np.diag(np.diag(V))
    values, Q = np.linalg.eigh(V)
    return (Q * np.maximum(values, 0) ** norm.power) @ Q.T + norm.epsilon * np.eye(4)


@pytest.mark.parametrize("norm", ADAPTIVE, ids=str)
def test_matrix_is_the_papers(norm):
    state = after(norm, GRADIENTS)
    np.testing.assert_allclose(dense(norm, state), matrix(norm), rtol=1e-10, atol=1e-12)
    assert int(state.t) == 5


@pytest.mark.parametrize("norm", ALL, ids=str)
def test_solve_is_the_inverse_of_apply(norm):
    state, v = after(norm, GRADIENTS), RNG.normal(size=4)
    np.testing.assert_allclose(norm.solve(state, norm.apply(state, v)), v, rtol=1e-10)
    np.testing.assert_allclose(length(norm, state, v) ** 2, v @ dense(norm, state) @ v, rtol=1e-10)


@pytest.mark.parametrize("norm", ALL, ids=str)
def test_adaptive_step_minimises_the_linear_model_in_its_ellipsoid(norm):
    """Kohler et al., equations 5 and 6, against other steps on the boundary."""
    state, g, eta = after(norm, GRADIENTS), GRADIENTS[-1], 0.1
    s = -eta * norm.solve(state, g)
    radius = eta * np.sqrt(g @ norm.solve(state, g))  # eta |g|_{A^-1}
    np.testing.assert_allclose(length(norm, state, s), radius, rtol=1e-10)
    for _ in range(200):
        other = RNG.normal(size=4)
        other = other * radius / length(norm, state, other)
        assert g @ other >= g @ s


@pytest.mark.parametrize(
    ("norm", "name", "options"),
    [
        (Adagrad(epsilon=1e-10), "Adagrad", {}),
        (RMSProp(decay=0.99), "RMSprop", {}),
        (Adam(), "Adam", {"betas": (0.0, 0.999)}),
    ],
    ids=["adagrad", "rmsprop", "adam"],
)
def test_first_order_steps_are_those_of_torch(norm, name, options):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    theirs = getattr(torch.optim, name)([x], lr=0.1, **options)
    state, ours = norm.init(np.zeros(4)), np.zeros(4)
    for g in GRADIENTS:
        x.grad = torch.from_numpy(g.copy())
        theirs.step()
        state = norm.update(state, g)
        ours = ours - 0.1 * norm.solve(state, g)
    np.testing.assert_allclose(ours, x.detach().numpy(), rtol=1e-9)


@pytest.mark.parametrize("norm", [n for n in ADAPTIVE if n.power == 0.5], ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_gradient_whose_square_is_not_finite_leaves_the_norm_alone(norm, bad):
    state = after(norm, GRADIENTS)
    same = norm.update(state, np.array([bad, 1.0, 1.0, 1.0]))
    for a, b in zip(state, same, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("norm", ADAPTIVE, ids=str)
def test_same_on_every_backend_and_dtype(backend, norm):
    g = backend.from_numpy(GRADIENTS.astype(np.float32))
    state = after(norm, [g[i, :] for i in range(5)])
    v = norm.solve(state, g[0, :])
    assert v.dtype == g.dtype
    assert [leaf.dtype for leaf in norm.init(g[0, :])] == [leaf.dtype for leaf in state]
    assert [leaf.shape for leaf in norm.init(g[0, :])] == [leaf.shape for leaf in state]
    expected = norm.solve(after(norm, GRADIENTS), GRADIENTS[0])
    np.testing.assert_allclose(backend.to_numpy(v), expected, rtol=2e-2 if norm.full else 1e-4)


def test_callables_are_used_as_they_are():
    A = np.diag([1.0, 2.0, 3.0, 4.0]) + 0.5
    norm = Preconditioner(product=lambda v: A @ v, inverse=lambda v: np.linalg.solve(A, v))
    np.testing.assert_allclose(dense(norm, norm.init(np.zeros(4))), A)
    np.testing.assert_allclose(norm.solve((), A[0]), [1, 0, 0, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RMSProp(decay=1.0), r"lie in \[0, 1\)"),
        (lambda: Adagrad(epsilon=0.0), "positive definite only"),
        (lambda: Adam(power=2.0), "equations 2 and 3"),
        (lambda: Preconditioner(), "either diagonal"),
        (lambda: Preconditioner(product=abs), "either diagonal"),
        (lambda: Preconditioner(diagonal=np.ones(2), inverse=abs), "either diagonal"),
        (lambda: Preconditioner(diagonal=np.zeros(2)), "must be positive"),
        (lambda: Preconditioner(diagonal=np.ones(2)).init(np.ones(3)), "the parameters are"),
    ],
)
def test_what_is_no_norm_says_so(make, message):
    with pytest.raises(ValueError, match=message):
        make()

"""The solvers as scikit-learn estimators."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import osculant
from osculant.problems import libsvm

pytest.importorskip("sklearn", minversion="1.6", reason="scikit-learn is not installed")
from scipy.sparse import csr_array
from sklearn import linear_model
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from osculant.adapters.sklearn_adapter import Classifier, LogisticRegression, Regressor

CONTAINERS = pytest.mark.parametrize("container", [np.asarray, csr_array])


def network(params, X):
    return np.tanh(X @ params["W"] + params["c"]) @ params["V"] + params["b"]


def start(n_features, n_outputs, random_state, width=3):
    W = random_state.normal(size=(n_features, width)) / np.sqrt(n_features)
    V = random_state.normal(size=(width, n_outputs))
    return {"W": W, "c": np.zeros(width), "V": V, "b": np.zeros(n_outputs)}


def linear(params, X):
    return X @ params["coef"] + params["intercept"]


def zeros(n_features, n_outputs, random_state):
    return {"coef": np.zeros((n_features, n_outputs)), "intercept": np.zeros(n_outputs)}


def poisson(outputs, targets):
    return (np.exp(outputs) - targets * outputs)[:, 0]


def samples(classes=2, n=120, d=6):
    X, labels = make_classification(
        n, d, n_informative=d - 1, n_redundant=0, n_classes=classes, flip_y=0.2, random_state=0
    )
    X[np.abs(X) < 0.5] = 0
    return X, labels, np.random.default_rng(1).integers(0, 4, n)


# scikit-learn's contract -------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class Network:
    """Defaults, which a test's name leaves out: it would name a function by its address."""

    model: Any = network
    params: Any = start
    solver: str = "trust-region"
    tol: float = 1e-8
    weight_decay: float = 0.1
    random_state: int = 0


@dataclass(kw_only=True, eq=False, repr=False)
class NetworkClassifier(Network, Classifier):
    pass


@dataclass(kw_only=True, eq=False, repr=False)
class NetworkRegressor(Network, Regressor):
    pass


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks([LogisticRegression(), NetworkClassifier(), NetworkRegressor()])
def test_contract(estimator, check):
    check(estimator)


def test_it_fits_into_pipelines_and_searches():
    X, labels, _ = samples(3)
    names = np.array(["a", "b", "c"])[labels]
    pipeline = make_pipeline(StandardScaler(), Classifier(network, start, random_state=0, tol=1e-3))
    grid = {
        "classifier__weight_decay": [1e-2, 1e3],
        "classifier__solver": [osculant.LBFGS(memory=5), "trust-region"],
    }
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, names)
    assert search.best_params_["classifier__weight_decay"] == 1e-2
    assert np.all(cross_val_score(search.best_estimator_, X, names, cv=2) > 0.5)


def test_a_clone_has_the_same_solver():
    estimator = LogisticRegression(solver=osculant.TrustRegion(radius=2.0), C=0.5)
    assert clone(estimator).get_params() == estimator.get_params()


# Linear models -----------------------------------------------------------------------------


@CONTAINERS
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"C": 0.05, "fit_intercept": False},
        {"C": 20.0, "class_weight": "balanced"},
        {"class_weight": {0: 3.0, 1: 0.5}},
        {"C": np.inf},
    ],
    ids=str,
)
@pytest.mark.parametrize("weighted", [False, True])
def test_logistic_regression_is_scikit_learns(container, classes, options, weighted):
    X, labels, weights = samples(classes)
    if not weighted or options.get("class_weight") == "balanced":  # which may leave weights out
        weights = None
    ours = LogisticRegression(**options, tol=1e-9).fit(container(X), labels, weights)
    theirs = linear_model.LogisticRegression(**options, solver="newton-cg", tol=1e-12)
    theirs.fit(container(X), labels, weights)
    for name in ("coef_", "intercept_"):
        assert getattr(ours, name).shape == getattr(theirs, name).shape
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-7)
    for method in ("predict", "predict_proba", "decision_function"):
        expected = getattr(theirs, method)(X)
        np.testing.assert_allclose(getattr(ours, method)(container(X)), expected, atol=1e-6)


@CONTAINERS
@pytest.mark.parametrize("weighted", [False, True])
def test_a_loss_of_ones_own_makes_scikit_learns_regressors(container, weighted):
    X, y, weights = samples(4)
    weights = weights if weighted else None
    total = weights.sum() if weighted else len(y)
    for loss, alpha, theirs in [
        (
            poisson,
            0.1,
            linear_model.PoissonRegressor(alpha=0.1, solver="newton-cholesky", tol=1e-12),
        ),
        (None, 5 / total, linear_model.Ridge(5.0, solver="lsqr", tol=1e-14)),
    ]:
        theirs.fit(container(X), y, weights)
        ours = Regressor(linear, zeros, loss=loss, weight_decay={"coef": alpha}, tol=1e-10)
        ours.fit(container(X), y, weights)
        np.testing.assert_allclose(ours.params_["coef"][:, 0], theirs.coef_, atol=1e-7)
        np.testing.assert_allclose(ours.params_["intercept"][0], theirs.intercept_, atol=1e-7)


def test_balanced_classes_count_weights_as_repetitions():
    X, labels, weights = samples(3)
    estimator = LogisticRegression(class_weight="balanced", tol=1e-10)
    weighted = clone(estimator).fit(X, labels, weights)
    repeated = clone(estimator).fit(X.repeat(weights, axis=0), labels.repeat(weights))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-9)
    without = clone(estimator).fit(X[labels < 2], labels[labels < 2])
    absent = clone(estimator).fit(X, labels, labels < 2)
    margins = absent.decision_function(X)[:, 1] - absent.decision_function(X)[:, 0]
    assert np.corrcoef(margins, without.decision_function(X))[0, 1] > 0.99


@pytest.mark.parametrize(
    "solver",
    ["lbfgs", "newton", "newton-cg", "auto", osculant.TrustRegion(curvature="gauss-newton")],
    ids=lambda solver: str(solver)[:11],
)
def test_any_solver_trains_it(solver):
    X, labels, _ = samples(3)
    estimators = [LogisticRegression(solver=s, tol=1e-8) for s in (None, solver)]
    first, second = (estimator.fit(X, labels).coef_ for estimator in estimators)
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_a9a_stays_sparse_and_takes_few_iterations(real_data, monkeypatch):
    X, y = libsvm(real_data, "a9a").train
    monkeypatch.setattr(csr_array, "toarray", None)
    ours = LogisticRegression(tol=1e-5).fit(X, y)
    theirs = linear_model.LogisticRegression(solver="newton-cg", tol=1e-7).fit(X, y)

    def objective(estimator):
        w, margins = estimator.coef_[0], y * estimator.decision_function(X)
        return np.sum(np.logaddexp(0, -margins)) + w @ w / 2

    assert objective(ours) <= objective(theirs) * (1 + 1e-8)
    assert ours.n_iter_ <= 8 and ours.history_["cost"][-1] < 180


# Precision, backends -----------------------------------------------------------------------


@CONTAINERS
def test_float32_stays_float32(container):
    X, labels, weights = samples(3)
    seen = set()

    def model(params, X):
        z = X @ params["W"]
        seen.update({np.dtype(params["W"].dtype), np.dtype(z.dtype)})
        return z

    def loss(outputs, targets):
        seen.update({targets.dtype, np.dtype(outputs.dtype)})
        return ((outputs - targets) ** 2).sum(axis=1)

    X = container(X.astype(np.float32))
    own = Classifier(model, lambda d, k, _: {"W": np.zeros((d, k))}, loss=loss, weight_decay=0.1)
    for estimator in (own, LogisticRegression(), LogisticRegression(class_weight="balanced")):
        estimator.fit(X, labels, weights.astype(np.float64))
        assert estimator.predict_proba(X).dtype == np.float32
        assert all(leaf.dtype == np.float32 for leaf in estimator.params_.values())
    assert seen == {np.dtype(np.float32)}
    assert LogisticRegression().fit(X, labels).coef_.dtype == np.float32


@pytest.mark.parametrize(("container", "classes"), [(np.asarray, 3), (csr_array, 2)])
def test_backends_agree(backend, container, classes):
    name = backend.__name__.rpartition(".")[-1].removesuffix("_backend")
    X, labels, weights = samples(classes)
    fitted = LogisticRegression(tol=1e-8).fit(X, labels, weights)
    other = LogisticRegression(tol=1e-8, backend=name, solver="lbfgs")
    other.fit(container(X), labels, weights)
    assert type(other.coef_) is np.ndarray and type(other.predict_proba(X)) is np.ndarray
    np.testing.assert_allclose(other.coef_, fitted.coef_, atol=1e-7)
    np.testing.assert_allclose(
        other.predict_proba(container(X)), fitted.predict_proba(X), atol=1e-7
    )


def test_jax_compiles_a_model_once():
    jnp = pytest.importorskip("jax.numpy", reason="JAX is not installed")
    X, labels, _ = samples()
    traced = []

    def model(params, X):
        traced.append(0)
        return jnp.tanh(X @ params["W"]) @ params["V"]

    def params(n_features, n_outputs, random_state):
        shapes = {"W": (n_features, 3), "V": (3, n_outputs)}
        return {name: random_state.normal(size=shape) for name, shape in shapes.items()}

    estimator = Classifier(model, params, weight_decay=0.1, backend="jax", solver="lbfgs", tol=1e-3)
    clone(estimator).set_params(random_state=0).fit(X, labels)
    before = len(traced)
    assert clone(estimator).set_params(random_state=1).fit(X, labels).n_iter_ > 3
    assert len(traced) == before


# Models of one's own -----------------------------------------------------------------------


@CONTAINERS
def test_mini_batches(container):
    X, labels, _ = samples(3)
    X, whole = container(X), LogisticRegression().fit(X, labels).score(X, labels)
    estimator = Classifier(linear, zeros, weight_decay=0.01, batch_size=30, max_iter=5)
    fitted = clone(estimator).set_params(random_state=0).fit(X, labels)
    assert fitted.n_iter_ == 20 and fitted.score(X, labels) > whole - 0.05
    again, other = (clone(estimator).set_params(random_state=r).fit(X, labels) for r in (0, 1))
    assert np.array_equal(again.params_["coef"], fitted.params_["coef"])
    assert not np.array_equal(other.params_["coef"], fitted.params_["coef"])
    assert clone(estimator).set_params(batch_size=10**6).fit(X, labels).n_iter_ == 5


def test_mini_batches_of_weighted_samples_add_up_to_all():
    X, y, weights = samples()
    sgd = osculant.SGD(learning_rate=1e-9)  # one epoch all but sums the gradients at zero
    fitted = Regressor(linear, zeros, batch_size=30, max_iter=1, solver=sgd).fit(X, y, weights)
    total = 4 * X.T @ (weights * y) / weights.sum()
    np.testing.assert_allclose(fitted.params_["coef"][:, 0] / 1e-9, total, rtol=1e-6)


def test_it_fits_curves_from_a_tree():
    X = np.linspace(0, 2, 30)[:, None]
    y = 3 * np.exp(-2 * X[:, 0]) + 1

    def model(params, X):
        a, b, c = params
        return a * np.exp(-b * X) + c

    curve = Regressor(model, (1, 1, 0), solver="lm", tol=1e-9).fit(X, y)
    np.testing.assert_allclose(curve.params_, (3, 2, 1), atol=1e-6)
    assert curve.predict(X).shape == (30,) and curve.score(X, y) > 1 - 1e-9


def test_predictions_are_shaped_as_the_targets():
    X, labels, _ = samples()
    for y in (labels, labels[:, None], np.stack([labels, -labels], axis=1)):
        regressor = Regressor(linear, zeros, tol=1e-8).fit(X, y)
        assert regressor.predict(X).shape == y.shape
        np.testing.assert_allclose(regressor.predict(X).mean(axis=0), y.mean(axis=0), atol=1e-6)


def test_weight_decay_may_spare_parameters():
    X, labels, _ = samples()
    for decay in (1e6, {"coef": 1e6}):
        fitted = Regressor(linear, zeros, weight_decay=decay, tol=1e-8).fit(X, labels)
        spared = isinstance(decay, dict)
        np.testing.assert_allclose(fitted.params_["coef"], 0, atol=1e-5)
        np.testing.assert_allclose(fitted.params_["intercept"], labels.mean() * spared, atol=1e-5)


@pytest.mark.parametrize(
    "estimator", [LogisticRegression(), Classifier(network, start, weight_decay=0.1)]
)
def test_a_warm_start_goes_on_from_the_solution(estimator):
    X, labels, _ = samples(3)
    estimator = clone(estimator).set_params(warm_start=True)
    assert estimator.fit(X, labels).n_iter_ > 2
    assert estimator.fit(X, labels).n_iter_ == 0
    assert estimator.set_params(warm_start=False).fit(X, labels).n_iter_ > 2


# Complaints --------------------------------------------------------------------------------


def test_it_warns_with_the_solvers_sentence():
    X, labels, _ = samples()
    with pytest.warns(ConvergenceWarning, match=r"LogisticRegression: The iteration limit was"):
        LogisticRegression(max_iter=1).fit(X, labels)
    with pytest.warns(ConvergenceWarning, match=r"Regressor: The function seems unbounded below"):
        Regressor(linear, zeros, loss=lambda z, y: -(np.exp(z) + z)[:, 0]).fit(X, labels)


@pytest.mark.parametrize(
    ("estimator", "error", "message"),
    [
        (LogisticRegression(C=0.0), ValueError, "C == 0.0, must be > 0"),
        (LogisticRegression(C="1"), TypeError, "C must be an instance of"),
        (LogisticRegression(solver="sag"), ValueError, "no method is called 'sag'"),
        (LogisticRegression(tol=-1.0), ValueError, "tol is -1.0"),
        (LogisticRegression(backend="keras"), ValueError, "no backend is called 'keras'"),
        (Regressor(linear, zeros, weight_decay={"w": 1.0}), ValueError, "no parameter is called"),
        (Regressor(linear, zeros, loss=lambda z, y: ((z - y) ** 2).mean()), ValueError, "mean"),
        (Regressor(lambda p, X: (X @ p["coef"])[:, 0], zeros), ValueError, "a column for each"),
    ],
)
def test_what_does_not_fit_is_refused(estimator, error, message):
    X, labels, _ = samples()
    with pytest.raises(error, match=message):
        estimator.fit(X, labels)


def test_weights_must_be_usable():
    X, labels, weights = samples()
    for unusable in (weights - 1.0, 0 * weights):
        with pytest.raises(ValueError, match="must not be negative, nor all of them zero"):
            LogisticRegression().fit(X, labels, unusable)
    with pytest.raises(ValueError, match="nor all of them zero"):
        LogisticRegression(class_weight={0: 0.0, 1: 1.0}).fit(X, labels, labels == 0)


def test_one_class_is_refused():
    X, labels, _ = samples()
    with pytest.raises(ValueError, match="one class only"):
        LogisticRegression().fit(X, 0 * labels)


def test_jax_says_how_to_get_float64():
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    X, labels, _ = samples()
    with jax.enable_x64(False), pytest.raises(TypeError, match="jax_enable_x64"):
        LogisticRegression(backend="jax").fit(X, labels)

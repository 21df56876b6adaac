"""The solvers in scikit-learn: estimators of linear models, and of models of your own.

Each minimises a weighted mean of losses over the samples, with weight decay in its value, gradient
and curvature. X may be dense or sparse. Computations are in its precision, float32 or float64, and
on the default device of ``backend``; what ``fit`` leaves behind is NumPy arrays.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Self

import numpy as np
import optree
from scipy.sparse import issparse
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state, check_scalar
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from .. import api, backends
from ..backends import linear_operator, ops
from ..batches import Batches
from ..core.arrays import Array, namespace
from ..core.regularize import Regularized
from ..core.solvers import Solver, TrustRegion

#: Maps parameters and inputs to outputs.
Model = Callable[[Any, Any], Array]
#: Maps outputs and targets, of one shape with a row for each sample, to one loss for each sample.
Loss = Callable[[Array, Array], Array]
#: Inputs, targets and weights, with a row for each sample.
Data = tuple[Any, np.ndarray, np.ndarray]


# Losses ------------------------------------------------------------------------------------


def _logistic(z: Array, y: Array) -> Array:
    """Return -log of the probability of y in {0, 1} under the log-odds z."""
    return ops.softplus(z) - z * y


def _cross_entropy(outputs: Array, targets: Array) -> Array:
    """Return -log of the probability of each class, for logits and one-hot rows."""
    return -namespace(outputs).sum(ops.log_softmax(outputs) * targets, axis=1)


def _squared(outputs: Array, targets: Array) -> Array:
    """Return half the squared distance of each row from its target."""
    return 0.5 * namespace(outputs).sum((outputs - targets) ** 2, axis=1)


@dataclass(frozen=True)
class _WeightedMean:
    """mean_i w_i loss_i: equal where the losses are, so that JAX finds its programs again."""

    loss: Loss

    def __call__(self, outputs: Array, targets_and_weights: tuple[Array, Array]) -> Array:
        targets, weights = targets_and_weights
        if tuple(outputs.shape) != tuple(targets.shape):
            raise ValueError(
                f"the model returned outputs of shape {tuple(outputs.shape)} for targets of shape "
                f"{tuple(targets.shape)}; it must return a column for each class or target"
            )
        losses = self.loss(outputs, targets)
        if tuple(losses.shape) != tuple(weights.shape):
            raise ValueError(
                f"the loss returned shape {tuple(losses.shape)}; it must return a number for each "
                f"sample, shape {tuple(weights.shape)}, and not their mean: samples have weights"
            )
        return namespace(losses).mean(losses * weights)


# What all estimators share -----------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class _Trained(BaseEstimator):
    solver: Solver | str | None = None
    tol: float | None = 1e-4
    max_iter: int = 100
    warm_start: bool = False
    backend: str = "numpy"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _validated(self, X: Any, y: Any, **options: Any) -> tuple[Any, Any]:
        precisions = [np.float64, np.float32]
        return validate_data(self, X, y, accept_sparse="csr", dtype=precisions, **options)

    def _train(
        self,
        model: Model,
        loss: Loss,
        params: Any,
        data: Data,
        *,
        weight_decay: float | Mapping[str, float],
        solver: Solver | str,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        """Set ``params_``, with the weights scaled to a mean of 1."""
        X, targets, weights = data
        data = X, targets, weights / weights.mean()
        if self.warm_start and hasattr(self, "params_"):
            params = self.params_
        params = self._moved(optree.tree_map(lambda leaf: np.asarray(leaf, X.dtype), params))
        oracle = backends.oracle(model=model, loss=_WeightedMean(loss), params=params)
        if weight_decay:
            oracle = Regularized(oracle, weight_decay)
        if batch_size is None:
            solution = api.minimize(
                oracle,
                params,
                method=solver,
                args=self._arguments(data),
                tol=self.tol,
                maxiter=self.max_iter,
            )
        else:
            batches = Batches(data, min(batch_size, len(weights)), seed=seed)
            solution = api.fit(
                oracle,
                params,
                lambda epoch: map(self._arguments, batches.epoch(epoch)),
                solver=solver,
                epochs=self.max_iter,
            )
        if not solution.success:
            message = f"{type(self).__name__}: {solution.message}"
            warnings.warn(message, ConvergenceWarning, stacklevel=3)
        self.n_iter_, self.history_ = solution.nit, solution.history
        self.params_: Any = optree.tree_map(backends.get(self.backend).to_numpy, solution.x)

    def _outputs(self, model: Model, X: Any) -> np.ndarray:
        check_is_fitted(self)
        dtype = optree.tree_leaves(self.params_)[0].dtype
        X = validate_data(self, X, reset=False, accept_sparse="csr", dtype=dtype)
        outputs = model(self._moved(self.params_), self._moved(X))
        return backends.get(self.backend).to_numpy(outputs)

    def _arguments(self, data: Data) -> tuple[Any, Any]:
        """Return what the model takes and what the loss takes."""
        X, targets, weights = data
        return self._moved(X), self._moved((targets, weights))

    def _moved(self, data: Any) -> Any:
        """Return a tree of NumPy arrays, or a sparse array, on the backend."""
        backend = backends.get(self.backend)
        if issparse(data):
            return linear_operator(data, like=backend.from_numpy(np.empty(0, data.dtype)))
        return data if self.backend == "numpy" else optree.tree_map(backend.from_numpy, data)


def _weights(sample_weight: Any, X: Any) -> np.ndarray:
    """Return weights of shape (n,) in the precision of X."""
    if sample_weight is None:
        return np.ones(X.shape[0], X.dtype)
    weights = check_array(sample_weight, dtype=X.dtype, ensure_2d=False, input_name="sample_weight")
    if weights.shape != X.shape[:1]:
        raise ValueError(f"sample_weight has shape {weights.shape} for {X.shape[0]} samples")
    return _usable(weights)


def _usable(weights: np.ndarray) -> np.ndarray:
    if weights.min() < 0 or weights.max() == 0:
        raise ValueError("the weights of samples must not be negative, nor all of them zero")
    return weights


class _Classes(ClassifierMixin):
    """What classifiers share: labels, weights of classes, and predictions by probabilities."""

    def _labelled(self, X: Any, y: Any, sample_weight: Any) -> Data:
        """Return X, one-hot targets and weights, having set ``classes_``."""
        X, y = self._validated(X, y)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"the samples are of one class only, {self.classes_[0]!r}")
        weights = _weights(sample_weight, X)
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            totals = np.bincount(labels, weights)
            of_class = weights.sum() / (np.count_nonzero(totals) * np.where(totals, totals, 1))
        else:
            of_class = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
        weights = _usable(weights * of_class.astype(X.dtype)[labels])
        return X, np.eye(len(self.classes_), dtype=X.dtype)[labels], weights

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable classes, of shape (n,)."""
        best = np.argmax(self.predict_proba(X), axis=1)
        return self.classes_[best]


# A linear model ----------------------------------------------------------------------------


def _linear(params: dict[str, Array], X: Any) -> Array:
    z = X @ params["coef"]
    return z + params["intercept"] if "intercept" in params else z


@dataclass(kw_only=True, eq=False, repr=False)
class LogisticRegression(_Classes, _Trained):
    """Logistic regression, by softmax for more than two classes.

    It minimises C sum_i s_i loss_i + |w|^2 / 2 over the samples with weights s, as
    :class:`sklearn.linear_model.LogisticRegression` does; the intercept is not penalised.

    Parameters
    ----------
    C : float
        Inverse of the penalty's weight; ``np.inf`` for no penalty.
    class_weight : mapping, "balanced" or None
        Weights of the classes, which multiply those of the samples.
    fit_intercept : bool
    solver : Solver or str, optional
        As ``method`` of :func:`osculant.minimize`. By default a trust-region Newton method by
        Hessian products alone, ``TrustRegion(quasi_newton=False, second_order=False)``.
    tol : float, optional
        Stop once no entry of the gradient exceeds it, of the objective divided by C sum_i s_i. None
        is the default of :func:`osculant.minimize`.
    max_iter : int
        Most iterations. Where ``tol`` is not reached, a ``ConvergenceWarning`` says why.
    warm_start : bool
        Whether ``fit`` starts from the last solution.
    backend : {"numpy", "torch", "jax", "cupy"}
        On whose arrays to compute.

    Attributes
    ----------
    classes_ : numpy.ndarray of shape (k,)
    coef_ : numpy.ndarray of shape (1, d), or (k, d) for k > 2
    intercept_ : numpy.ndarray of shape (1,) or (k,)
    params_ : dict of numpy.ndarray
        Both, as they were trained: ``coef_`` is transposed.
    n_iter_ : int
    history_ : History
        Values, gradients and cost by iteration.

    Examples
    --------
    >>> X, y = [[0.0], [1.0], [2.0], [3.0]], ["low", "low", "high", "high"]
    >>> LogisticRegression(C=10.0).fit(X, y).predict([[0.4], [2.6]]).tolist()
    ['low', 'high']
    """

    C: float = 1.0
    fit_intercept: bool = True
    class_weight: Mapping[Any, float] | str | None = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to X of shape (n, d), and labels and weights of shape (n,)."""
        check_scalar(self.C, "C", Real, min_val=0, include_boundaries="neither")
        X, targets, weights = self._labelled(X, y, sample_weight)
        loss: Loss = _cross_entropy
        if len(self.classes_) == 2:
            loss, targets = _logistic, targets[:, 1]
        columns = targets.shape[1:]
        params = {"coef": np.zeros((X.shape[1], *columns))}
        if self.fit_intercept:
            params["intercept"] = np.zeros(columns)
        self._train(
            _linear,
            loss,
            params,
            (X, targets, weights),
            weight_decay={"coef": 1 / (self.C * float(weights.sum()))},
            # Steps by pairs, the default, do not pay on convex functions with cheap products.
            solver=self.solver or TrustRegion(quasi_newton=False, second_order=False),
        )
        self.coef_ = np.atleast_2d(self.params_["coef"].T)
        self.intercept_ = np.atleast_1d(self.params_.get("intercept", np.zeros(columns, X.dtype)))
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the log-odds of ``classes_[1]``, of shape (n,), or logits of shape (n, k)."""
        return self._outputs(_linear, X)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities of the classes, of shape (n, k)."""
        z = self.decision_function(X)
        return np.stack([expit(-z), expit(z)], axis=1) if z.ndim == 1 else softmax(z, axis=1)


# Models of your own ------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class _OwnModel(_Trained):
    model: Model = field(kw_only=False)
    params: Any = field(kw_only=False)
    loss: Loss | None = None
    weight_decay: float | Mapping[str, float] = 0.0
    batch_size: int | None = None
    max_iter: int = 200
    random_state: Any = None

    def _fit(self, default: Loss, data: Data) -> None:
        """Set ``params_``."""
        X, targets, _ = data
        random = check_random_state(self.random_state)
        params = self.params
        if callable(params):
            params = params(X.shape[1], targets.shape[1], random)
        self._train(
            self.model,
            self.loss or default,
            params,
            data,
            weight_decay=self.weight_decay,
            solver=self.solver or ("auto" if self.batch_size is None else "newton-krylov"),
            batch_size=self.batch_size,
            seed=random.randint(2**31),
        )


@dataclass(kw_only=True, eq=False, repr=False)
class Classifier(_Classes, _OwnModel):
    """A classifier whose logits are the outputs of a model of your own.

    Parameters
    ----------
    model : callable
        ``model(params, X)`` returns logits of shape (n, k), a column for each class, by functions
        of the backend's arrays. A sparse X comes as an :func:`osculant.linear_operator`, so that
        ``X @ W`` serves both.
    params : callable or tree of arrays
        The tree to start from, or ``params(n_features, n_outputs, random_state)``, which returns
        it.
    loss : callable, optional
        ``loss(outputs, targets)`` returns one loss for each sample, of shape (n,), for logits and
        one-hot rows. By default the cross-entropy of softmax. Their mean, weighted, is minimised.
    class_weight : mapping, "balanced" or None
        As for :class:`LogisticRegression`.
    weight_decay : float or mapping
        As of :class:`osculant.Regularized`: ``{"*weight": 1e-4}`` spares the biases.
    batch_size : int, optional
        Train on mini-batches of this size by :func:`osculant.fit`; by default on all samples at
        once by :func:`osculant.minimize`.
    solver : Solver or str, optional
        By default ``"auto"``, or ``"newton-krylov"`` on mini-batches.
    tol, warm_start, backend
        As for :class:`LogisticRegression`; on mini-batches there is no ``tol``.
    max_iter : int
        Most iterations; epochs on mini-batches.
    random_state : int, numpy.random.RandomState or None
        Of the start and the mini-batches.

    Attributes
    ----------
    params_ : tree of numpy.ndarray
    classes_, history_
        As of :class:`LogisticRegression`.
    n_iter_ : int
        Iterations; steps on mini-batches.

    Examples
    --------
    >>> import numpy as np
    >>> def start(n_features, n_outputs, random_state):
    ...     shapes = {"W": (n_features, 8), "c": 8, "V": (8, n_outputs)}
    ...     return {name: random_state.normal(size=shape) for name, shape in shapes.items()}
    >>> def model(params, X):
    ...     return np.tanh(X @ params["W"] + params["c"]) @ params["V"]
    >>> X, y = [[1, 1], [1, -1], [-1, 1], [-1, -1]], ["same", "other", "other", "same"]
    >>> Classifier(model, start, weight_decay=1e-3, random_state=0).fit(X, y).score(X, y)
    1.0
    """

    class_weight: Mapping[Any, float] | str | None = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to X of shape (n, d), and labels and weights of shape (n,)."""
        self._fit(_cross_entropy, self._labelled(X, y, sample_weight))
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return softmax of the outputs, of shape (n, k)."""
        return softmax(self._outputs(self.model, X), axis=1)


@dataclass(kw_only=True, eq=False, repr=False)
class Regressor(MultiOutputMixin, RegressorMixin, _OwnModel):
    """A regressor whose predictions are the outputs of a model of your own.

    A generalised linear model is a linear model with the loss of its family: of ``z = X @ w + b``,
    of shape (n, 1), ``(exp(z) - y * z)[:, 0]`` is Poisson's, and ``weight_decay={"w": alpha}`` what
    scikit-learn's ``PoissonRegressor`` has. The predictions are z.

    Parameters
    ----------
    model : callable
        ``model(params, X)`` returns predictions of shape (n, m): a column for each target, one for
        y of shape (n,).
    loss : callable, optional
        As for :class:`Classifier`, the targets being those of y, of shape (n, m). By default half
        the squared distance.
    params, weight_decay, batch_size, solver, tol, max_iter, warm_start, backend, random_state
        As for :class:`Classifier`.

    Attributes
    ----------
    params_, n_iter_, history_
        As of :class:`Classifier`.

    Examples
    --------
    >>> import numpy as np
    >>> def model(params, X):
    ...     return params["a"] * np.exp(-params["b"] * X)
    >>> X = np.linspace(0, 2, 20)[:, None]
    >>> y = 3 * np.exp(-2 * X[:, 0])
    >>> decay = Regressor(model, {"a": 1.0, "b": 0.0}, solver="lm", tol=1e-8).fit(X, y)
    >>> {name: round(float(value), 4) for name, value in decay.params_.items()}
    {'a': 3.0, 'b': 2.0}
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to X of shape (n, d), y of shape (n,) or (n, m), and weights of shape (n,)."""
        X, y = self._validated(X, y, multi_output=True)
        self._one_target = y.ndim == 1
        targets = y.astype(X.dtype).reshape(len(y), -1)
        self._fit(_squared, (X, targets, _weights(sample_weight, X)))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return predictions, shaped as y was."""
        outputs = self._outputs(self.model, X)
        return outputs[:, 0] if self._one_target else outputs

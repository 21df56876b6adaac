"""Models to be trained, each a composition ``loss(model(params, inputs), targets)``.

The composition is what gives them Gauss-Newton products. Every function is written once, with
the array API of the *parameters*: while a program is differentiated these are traced and the
data are plain arrays, so that the data's namespace would be the wrong one. Initial parameters
are NumPy arrays, for the caller to move to a backend and device.

Losses are averaged over the samples. Targets are arrays of the parameters' dtype: one-hot rows
(:func:`~osculant.problems.datasets.one_hot`), signs (:func:`~osculant.problems.datasets.signs`)
or whatever is to be reproduced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import optree

from ..backends.ops import linear
from ..core.arrays import Array, is_array, namespace

#: Maps the parameters and the inputs to outputs.
Model = Callable[[Any, Array], Array]
#: Maps the outputs and the targets to a scalar.
Loss = Callable[[Array, Array], Array]
#: The parameters of a feed-forward network: one ``{"weight": (m, n), "bias": (n,)}`` a layer.
Layers = list[dict[str, Any]]
#: Maps the widths (n_0, ..., n_L), a seed and a dtype to initial parameters.
Initialiser = Callable[[Sequence[int], int, Any], Layers]


@dataclass(frozen=True)
class Problem:
    """A model, its loss and the parameters to start from.

    Attributes
    ----------
    name : str
    model : callable
        ``model(params, inputs) -> outputs``.
    loss : callable
        ``loss(outputs, targets) -> scalar``.
    params : tree of numpy.ndarray
        The initial parameters.
    predict : callable
        ``predict(params, inputs) -> outputs``: the model without what a :func:`ridge` adds.

    Examples
    --------
    >>> import osculant
    >>> from osculant.problems import digits, mlp
    >>> problem, data = mlp([64, 16, 10]), digits()
    >>> oracle = osculant.oracle(model=problem.model, loss=problem.loss, params=problem.params)
    >>> point = oracle.at(oracle.ravel(problem.params), *data.train)
    """

    name: str
    model: Model
    loss: Loss
    params: Any
    predict: Model


def ridge(problem: Problem, l2: float) -> Problem:
    """Return the problem with l2/2 |params|^2 added to its loss.

    Raises
    ------
    ValueError
        If ``l2`` is negative.

    Notes
    -----
    A loss sees outputs alone, so the ridge is made of outputs: the model returns its own,
    flattened, followed by sqrt(l2) times the parameters, and the loss adds half the sum of
    their squares. So the problem stays a composition, and its Gauss-Newton matrix is
    G + l2 I. The targets must have the shape of the original outputs.
    """
    if not l2 >= 0:
        raise ValueError(f"l2 is {l2}; a ridge has a weight of 0 or more")
    n = sum(leaf.size for leaf in optree.tree_leaves(problem.params))
    return replace(
        problem,
        model=partial(_outputs_and_ridge, model=problem.model, root_l2=math.sqrt(l2)),
        loss=partial(_loss_and_ridge, loss=problem.loss, n=n),
    )


def _outputs_and_ridge(params: Any, inputs: Array, *, model: Model, root_l2: float) -> Array:
    outputs = model(params, inputs)
    xp = namespace(outputs)
    parts = [outputs, *(root_l2 * leaf for leaf in optree.tree_leaves(params))]
    return xp.concat([xp.reshape(part, (-1,)) for part in parts])


def _loss_and_ridge(outputs: Array, targets: Array, *, loss: Loss, n: int) -> Array:
    xp = namespace(outputs)
    m = outputs.shape[0] - n
    if math.prod(targets.shape) != m:
        raise ValueError(f"the targets have shape {tuple(targets.shape)} for {m} outputs")
    own = xp.reshape(outputs[:m], tuple(targets.shape))
    return loss(own, targets) + 0.5 * xp.sum(outputs[m:] ** 2)


# Linear classifiers ------------------------------------------------------------------------


def logistic_regression(features: int, *, l2: float = 0.0, dtype: Any = np.float64) -> Problem:
    """Return mean_i log(1 + exp(-y_i w'x_i)) + l2/2 |w|^2, started at w = 0.

    There is no intercept: append a column of ones to the inputs for one, as LIBLINEAR does.
    LIBLINEAR's C is 1 / (l2 N) for N samples. The scores are linear in w, so the Gauss-Newton
    matrix is the Hessian, X' D X / N + l2 I.

    Parameters
    ----------
    features : int
        Length d of w, the only parameter. Inputs have shape (N, d), targets (N,), in {-1, +1}.
        The inputs may be sparse: of scipy.sparse for NumPy parameters, and for any others an
        :func:`osculant.linear_operator`.
    l2 : float
        Weight of the :func:`ridge`.
    dtype : numpy dtype
    """
    return _linear("logistic regression", _log_loss, features, l2, dtype)


def squared_hinge_svm(features: int, *, l2: float = 0.0, dtype: Any = np.float64) -> Problem:
    """Return mean_i max(0, 1 - y_i w'x_i)^2 + l2/2 |w|^2, started at w = 0.

    LIBLINEAR's L2-loss support vector machine; everything else as in
    :func:`logistic_regression`. It is once differentiable: the Hessian is the generalised one,
    which counts the samples inside the margin.
    """
    return _linear("squared-hinge SVM", _squared_hinge, features, l2, dtype)


def _linear(
    name: str, of_margins: Callable[[Array], Array], features: int, l2: float, dtype: Any
) -> Problem:
    plain = Problem(
        name=name,
        model=_scores,
        loss=partial(_margin_loss, of_margins=of_margins),
        params=np.zeros(features, dtype),
        predict=_scores,
    )
    return ridge(plain, l2)


def _scores(w: Array, inputs: Array) -> Array:
    if is_array(inputs):
        return namespace(w).matmul(inputs, w)
    return inputs @ w  # sparse


def _margin_loss(outputs: Array, targets: Array, *, of_margins: Callable[[Array], Array]) -> Array:
    _check_targets(outputs, targets, "one sign for each score")
    return namespace(outputs).mean(of_margins(outputs * targets))


def _log_loss(margins: Array) -> Array:
    return _softplus(-margins)


def _squared_hinge(margins: Array) -> Array:
    xp = namespace(margins)
    return xp.maximum(1 - margins, xp.zeros_like(margins)) ** 2


# Networks ----------------------------------------------------------------------------------


def glorot(widths: Sequence[int], seed: int, dtype: Any = np.float64) -> Layers:
    """Return layers with weights uniform in +-sqrt(6 / (m + n)) and zero biases.

    Raises
    ------
    ValueError
        If fewer than two widths are given, or one is not positive.

    References
    ----------
    X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010, eq. 16.
    """
    _check_widths(widths)
    rng = np.random.default_rng(seed)
    layers = []
    for m, n in pairwise(widths):
        bound = math.sqrt(6 / (m + n))
        weight = rng.uniform(-bound, bound, (m, n)).astype(dtype)
        layers.append({"weight": weight, "bias": np.zeros(n, dtype)})
    return layers


def sparse(
    widths: Sequence[int],
    seed: int,
    dtype: Any = np.float64,
    *,
    incoming: int = 15,
    bias: float = 0.0,
) -> Layers:
    """Return layers where each unit has ``incoming`` standard normal weights, the rest zero.

    Units saturate less and differ more from one another than with a dense initialisation.
    A layer with fewer inputs than ``incoming`` is dense.

    Raises
    ------
    ValueError
        If fewer than two widths are given, or one is not positive.

    References
    ----------
    J. Martens, "Deep learning via Hessian-free optimization", ICML 2010, section 5: 15
    connections, biases of 0, or 0.5 for tanh units.
    """
    _check_widths(widths)
    rng = np.random.default_rng(seed)
    layers = []
    for m, n in pairwise(widths):
        count = min(incoming, m)
        weight = np.zeros((m, n), dtype)
        for unit in range(n):
            weight[rng.choice(m, count, replace=False), unit] = rng.standard_normal(count)
        layers.append({"weight": weight, "bias": np.full(n, bias, dtype)})
    return layers


def mlp(
    widths: Sequence[int],
    *,
    activation: Literal["tanh", "sigmoid"] = "tanh",
    seed: int = 0,
    initialise: Initialiser = glorot,
    dtype: Any = np.float64,
) -> Problem:
    """Return a classifier with fully connected layers and the softmax cross-entropy.

    Parameters
    ----------
    widths : sequence of int
        From the inputs' (N, widths[0]) to the one-hot targets' (N, widths[-1]).
    activation : {"tanh", "sigmoid"}
        Of the hidden layers. The outputs are logits.
    seed : int
        Of the initial parameters.
    initialise : callable
        :func:`glorot`, :func:`sparse` or the like.
    dtype : numpy dtype

    Raises
    ------
    ValueError
        If the widths or the activation are not valid.
    """
    model = _network([activation] * (len(widths) - 2) + ["linear"])
    return Problem(
        name="-".join(map(str, widths)) + f" {activation} network",
        model=model,
        loss=softmax_cross_entropy,
        params=initialise(widths, seed, dtype),
        predict=model,
    )


def autoencoder(
    widths: Sequence[int] = (784, 1000, 500, 250, 30),
    *,
    activation: Literal["sigmoid", "tanh"] = "sigmoid",
    loss: Literal["cross-entropy", "squared-error"] = "cross-entropy",
    outputs: Literal["linear", "sigmoid"] = "linear",
    seed: int = 0,
    initialise: Initialiser = sparse,
    dtype: Any = np.float64,
) -> Problem:
    """Return the deep autoencoder whose encoder has these widths, mirrored by its decoder.

    The code layer is linear, and so are the outputs: the cross-entropy takes them for logits
    of pixels in [0, 1], the squared error for the pixels themselves. These are the pairs of
    output and loss that match, which makes Gauss-Newton the Fisher matrix. Outputs that are
    sigmoids are pixels in (0, 1), for the squared error only.

    Parameters
    ----------
    widths : sequence of int
        From the inputs' (N, widths[0]) to the code's. The targets are the inputs.
    activation : {"sigmoid", "tanh"}
        Of the hidden layers other than the code.
    loss : {"cross-entropy", "squared-error"}
        Summed over the outputs.
    outputs : {"linear", "sigmoid"}
        What the output units are.
    seed : int
        Of the initial parameters.
    initialise : callable
        :func:`sparse`, :func:`glorot` or the like.
    dtype : numpy dtype

    Raises
    ------
    ValueError
        If the widths, the activation, the loss or the outputs are not valid, or sigmoid outputs
        are to be logits.

    References
    ----------
    G. E. Hinton, R. R. Salakhutdinov, "Reducing the dimensionality of data with neural
    networks", Science 313 (2006); the initialisation and the optimiser's test bed: J. Martens,
    "Deep learning via Hessian-free optimization", ICML 2010.
    """
    losses = {"cross-entropy": sigmoid_cross_entropy, "squared-error": squared_error}
    if loss not in losses:
        raise ValueError(f"there is no loss {loss!r}; choose one of {', '.join(losses)}")
    if outputs == "sigmoid" and loss == "cross-entropy":
        raise ValueError("the cross-entropy takes logits; leave outputs='linear' with it")
    hidden = [activation] * (len(widths) - 2)
    mirrored = [*widths, *reversed(widths[:-1])]
    model = _network([*hidden, "linear", *hidden, outputs])
    return Problem(
        name="-".join(map(str, mirrored)) + f" {activation} autoencoder",
        model=model,
        loss=losses[loss],
        params=initialise(mirrored, seed, dtype),
        predict=model,
    )


def softmax_cross_entropy(outputs: Array, targets: Array) -> Array:
    """Return the mean over samples of -log softmax(outputs)[class], as a 0-d array.

    Parameters
    ----------
    outputs : array of shape (N, C)
        Logits of any size: the greatest of each row is subtracted before exp.
    targets : array of shape (N, C)
        One-hot rows, or any distribution over the classes.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    _check_targets(outputs, targets, "one-hot rows, see one_hot(labels, classes)")
    xp = namespace(outputs)
    # The result does not depend on what is subtracted, so its derivatives are exact whatever
    # subgradient a framework takes for max where two logits tie.
    shifted = outputs - xp.max(outputs, axis=1, keepdims=True)
    log_sum = xp.log(xp.sum(xp.exp(shifted), axis=1))
    return xp.mean(log_sum - xp.sum(shifted * targets, axis=1))


def sigmoid_cross_entropy(outputs: Array, targets: Array) -> Array:
    """Return the mean over samples of the summed cross-entropies of independent Bernoullis.

    Parameters
    ----------
    outputs : array of shape (N, m)
        Logits of any size.
    targets : array of shape (N, m)
        Probabilities, in [0, 1].

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    _check_targets(outputs, targets, "one probability for each output")
    xp = namespace(outputs)
    return xp.mean(xp.sum(_softplus(outputs) - outputs * targets, axis=1))


def squared_error(outputs: Array, targets: Array) -> Array:
    """Return the mean over samples of |outputs - targets|^2 / 2, as a 0-d array.

    Raises
    ------
    ValueError
        If the shapes, (N, m), differ.
    """
    _check_targets(outputs, targets, "one value for each output")
    xp = namespace(outputs)
    return xp.mean(0.5 * xp.sum((outputs - targets) ** 2, axis=1))


def _network(activations: Sequence[str]) -> Callable[[Layers, Array], Array]:
    for name in activations:
        if name not in _ACTIVATIONS:
            known = ", ".join(_ACTIVATIONS)
            raise ValueError(f"there is no activation {name!r}; choose one of {known}")
    return partial(_feed_forward, activations=tuple(activations))


def _feed_forward(params: Layers, inputs: Array, *, activations: tuple[str, ...]) -> Array:
    z = inputs
    for layer, activation in zip(params, activations, strict=True):
        z = _ACTIVATIONS[activation](linear(z, layer["weight"], layer["bias"]))
    return z


def _tanh(z: Array) -> Array:
    return namespace(z).tanh(z)


def _sigmoid(z: Array) -> Array:
    return 0.5 + 0.5 * _tanh(0.5 * z)  # exp(-z) would overflow


def _identity(z: Array) -> Array:
    return z


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "linear": _identity,
}


def _softplus(z: Array) -> Array:
    """Return log(1 + exp(z)), without overflow and with exact derivatives at z = 0 too.

    max(z, 0) + log(1 + exp(-|z|)) would do for the value. Its second derivative at 0 however is
    0 instead of 1/4 by any rule for |z|, and 0 is where logistic regression starts.
    """
    xp = namespace(z)
    return xp.logaddexp(z, xp.zeros_like(z))


def _check_widths(widths: Sequence[int]) -> None:
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"the widths are {tuple(widths)}; two or more positive ones are needed")


def _check_targets(outputs: Array, targets: Array, wanted: str) -> None:
    if tuple(outputs.shape) != tuple(targets.shape):
        raise ValueError(
            f"the targets have shape {tuple(targets.shape)}, the outputs {tuple(outputs.shape)}; "
            f"they must agree: {wanted}"
        )

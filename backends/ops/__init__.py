"""What neural networks need and the array API lacks, with one signature on every backend.

The functions take arrays of any backend, within a function that is being differentiated or
outside. PyTorch and JAX answer with their own; everywhere else they are made of the tape's
primitives, a convolution of a matrix product over windows. They have derivatives of every order
that the backend has, and complex steps and multicomplex arrays go through them: what branches
does so by the real part.

Images are arrays of shape (N, C, H, W), the layout of PyTorch: samples, channels, rows, columns.
Nothing keeps a state: statistics and random masks are arguments.

Examples
--------
>>> import numpy as np
>>> from osculant import ops
>>> images, weight = np.ones((1, 1, 4, 4)), np.ones((2, 1, 3, 3))
>>> ops.relu(ops.conv2d(images, weight, padding="same")).shape
(1, 2, 4, 4)
"""

from .activations import elu as elu
from .activations import erf as erf
from .activations import gelu as gelu
from .activations import relu as relu
from .activations import sigmoid as sigmoid
from .activations import softplus as softplus
from .classification import cross_entropy as cross_entropy
from .classification import log_softmax as log_softmax
from .classification import logsumexp as logsumexp
from .classification import one_hot as one_hot
from .classification import softmax as softmax
from .images import avg_pool2d as avg_pool2d
from .images import conv2d as conv2d
from .images import max_pool2d as max_pool2d
from .images import pad as pad
from .layers import Statistics as Statistics
from .layers import batch_norm as batch_norm
from .layers import batch_statistics as batch_statistics
from .layers import dropout as dropout
from .layers import embedding as embedding
from .layers import layer_norm as layer_norm
from .linear import linear as linear

__all__ = [
    "Statistics",
    "avg_pool2d",
    "batch_norm",
    "batch_statistics",
    "conv2d",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
    "erf",
    "gelu",
    "layer_norm",
    "linear",
    "log_softmax",
    "logsumexp",
    "max_pool2d",
    "one_hot",
    "pad",
    "relu",
    "sigmoid",
    "softmax",
    "softplus",
]

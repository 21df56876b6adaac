"""Convolutional and attention networks, each written once with :mod:`osculant.ops`.

They are compositions as in :mod:`~osculant.problems.models`, with NumPy arrays as parameters, for
the caller to move to a backend. Images are arrays of shape (N, C, H, W), or their rows of length
C H W, which data sets hold. The loss is :func:`osculant.ops.cross_entropy`: targets are one-hot
rows or labels. ``width`` scales the numbers of channels, so that the same network is a test or a
benchmark. Batch normalisation always uses the statistics of the batch that it is given: ``predict``
needs a batch, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..backends import ops
from ..core.arrays import Array, like, namespace
from .models import Problem

#: Of a batch of images, without the batch: (C, H, W).
Shape = tuple[int, int, int]


def lenet5(
    classes: int = 10,
    *,
    image: Shape = (1, 28, 28),
    width: float = 1.0,
    seed: int = 0,
    dtype: Any = np.float64,
) -> Problem:
    """Return LeNet-5: two convolutions with tanh and averages, three dense layers.

    61,706 parameters. As in later usage, all of the second convolution's connections are present,
    subsampling has no parameters, and the outputs are logits.

    Parameters
    ----------
    classes : int
    image : tuple of int
        (C, H, W). The first convolution pads 28 x 28 to the 32 x 32 of the paper.
    width : float
        Scales the 6, 16, 120 and 84 units.
    seed : int
        Of the initial parameters: weights as in
        :func:`~osculant.problems.models.glorot`, biases 0.
    dtype : numpy dtype

    Raises
    ------
    ValueError
        If the images are too small.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
    recognition", Proceedings of the IEEE 86 (1998), section II.B.
    """
    channels, rows, columns = image
    places = ((rows // 2 - 4) // 2) * ((columns // 2 - 4) // 2)
    if rows < 12 or columns < 12:
        raise ValueError(f"LeNet-5 needs images of 12 x 12 or more, not {rows} x {columns}")
    draw = _Draw(seed, dtype, _glorot)
    a, b, c, d = (_scaled(n, width) for n in (6, 16, 120, 84))
    params = {
        "conv1": draw.conv(channels, a, 5),
        "conv2": draw.conv(a, b, 5),
        "dense1": draw.dense(b * places, c),
        "dense2": draw.dense(c, d),
        "dense3": draw.dense(d, classes),
    }
    return _problem("LeNet-5", partial(_lenet5, image=image), params)


def _lenet5(params: Any, inputs: Array, *, image: Shape) -> Array:
    tanh = namespace(params["dense1"]["weight"]).tanh
    z = _conv(params["conv1"], _images(inputs, image), padding="same")
    z = ops.avg_pool2d(tanh(z), 2)
    z = ops.avg_pool2d(tanh(_conv(params["conv2"], z)), 2)
    z = tanh(_dense(params["dense1"], _flat(z)))
    return _dense(params["dense3"], tanh(_dense(params["dense2"], z)))


# VGG -----------------------------------------------------------------------------------------

#: Channels of the convolutions, and 0 for a maximum over 2 x 2: table 1 of the paper.
_VGG = {
    11: (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    19: (64, 64, 0, 128, 128, 0, *[256] * 4, 0, *[512] * 4, 0, *[512] * 4, 0),
}


def vgg11(classes: int = 10, **options: Any) -> Problem:
    """Return VGG-11 with batch normalisation and ELU; its options are those of :func:`vgg19`."""
    return _vgg(11, classes, "elu", True, **options)


def vgg19(classes: int = 10, **options: Any) -> Problem:
    """Return VGG-19 with ReLU: sixteen 3 x 3 convolutions in five stages, and a dense layer.

    The paper's two hidden dense layers of 4096 units are for images of 224 x 224; small images
    are classified by the last stage's outputs, as is usual.

    Parameters
    ----------
    classes : int
    image : tuple of int
        (C, H, W), by default (3, 32, 32). H and W are multiples of 32.
    width : float
        Scales the channels, by default 1.
    seed : int
        Of the initial parameters: normal weights of variance 2 / m, with m inputs, biases 0
        (K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", ICCV 2015, eq. 10).
    dtype : numpy dtype

    Raises
    ------
    ValueError
        If H or W is not a multiple of 32.

    References
    ----------
    K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image recognition",
    ICLR 2015, table 1, columns A and E.
    """
    return _vgg(19, classes, "relu", False, **options)


class _Vgg(NamedTuple):
    """What distinguishes the networks of the family."""

    image: Shape
    plan: tuple[int, ...]
    activation: str


def _vgg(
    depth: int,
    classes: int,
    activation: str,
    normalised: bool,
    *,
    image: Shape = (3, 32, 32),
    width: float = 1.0,
    seed: int = 0,
    dtype: Any = np.float64,
) -> Problem:
    channels, rows, columns = image
    if rows % 32 or columns % 32:
        raise ValueError(f"VGG halves images five times; {rows} x {columns} is no multiple of 32")
    draw, layers = _Draw(seed, dtype, _he), []
    for n in filter(None, _VGG[depth]):
        outputs = _scaled(n, width)
        conv = draw.conv(channels, outputs, 3, bias=not normalised)
        layers.append({"conv": conv, "norm": draw.norm(outputs)} if normalised else {"conv": conv})
        channels = outputs
    places = (rows // 32) * (columns // 32)
    params = {"stages": layers, "dense": draw.dense(channels * places, classes)}
    model = partial(_run_vgg, network=_Vgg(image, _VGG[depth], activation))
    return _problem(f"VGG-{depth}", model, params)


def _run_vgg(params: Any, inputs: Array, *, network: _Vgg) -> Array:
    z, layers = _images(inputs, network.image), iter(params["stages"])
    activation = getattr(ops, network.activation)
    for n in network.plan:
        if n == 0:
            z = ops.max_pool2d(z, 2)
            continue
        layer = next(layers)
        z = _conv(layer["conv"], z, padding=1)
        z = activation(_norm(layer["norm"], z) if "norm" in layer else z)
    return _dense(params["dense"], _flat(z))


# ResNet --------------------------------------------------------------------------------------

#: Channels of the four stages, each of two blocks, and the strides of their first.
_RESNET18 = ((64, 1), (128, 2), (256, 2), (512, 2))


def resnet18(
    classes: int = 10,
    *,
    image: Shape = (3, 32, 32),
    width: float = 1.0,
    seed: int = 0,
    dtype: Any = np.float64,
) -> Problem:
    """Return ResNet-18 for small images: eight blocks of two convolutions, each with a shortcut.

    The stem is a 3 x 3 convolution without pooling, as for CIFAR in section 4.2 of the paper;
    shortcuts that change the shape are 1 x 1 convolutions (option B).

    Parameters
    ----------
    classes : int
    image : tuple of int
        (C, H, W).
    width : float
        Scales the channels.
    seed : int
        Of the initial parameters, drawn as for :func:`vgg19`.
    dtype : numpy dtype

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR 2016,
    table 1.
    """
    draw = _Draw(seed, dtype, _he)
    channels = _scaled(64, width)
    stem = {
        "conv": draw.conv(image[0], channels, 3, bias=False),
        "norm": draw.norm(channels),
    }
    blocks = []
    for n, stride in _RESNET18:
        for s in (stride, 1):
            blocks.append(_block(draw, channels, _scaled(n, width), s))
            channels = _scaled(n, width)
    params = {"stem": stem, "blocks": blocks, "dense": draw.dense(channels, classes)}
    return _problem("ResNet-18", partial(_resnet18, image=image), params)


def _block(draw: _Draw, channels: int, outputs: int, stride: int) -> dict[str, Any]:
    block = {
        "conv1": draw.conv(channels, outputs, 3, bias=False),
        "norm1": draw.norm(outputs),
        "conv2": draw.conv(outputs, outputs, 3, bias=False),
        "norm2": draw.norm(outputs),
    }
    if stride != 1 or channels != outputs:
        block["shortcut"] = draw.conv(channels, outputs, 1, bias=False)
        block["shortcut_norm"] = draw.norm(outputs)
    return block


def _resnet18(params: Any, inputs: Array, *, image: Shape) -> Array:
    stem = params["stem"]
    z = ops.relu(_norm(stem["norm"], _conv(stem["conv"], _images(inputs, image), padding=1)))
    strides = [s for _, stride in _RESNET18 for s in (stride, 1)]
    for block, stride in zip(params["blocks"], strides, strict=True):
        z = _residual(block, z, stride)
    return _dense(params["dense"], namespace(z).mean(z, axis=(2, 3)))


def _residual(block: Any, z: Array, stride: int) -> Array:
    y = ops.relu(_norm(block["norm1"], _conv(block["conv1"], z, stride=stride, padding=1)))
    y = _norm(block["norm2"], _conv(block["conv2"], y, padding=1))
    if "shortcut" in block:
        z = _norm(block["shortcut_norm"], _conv(block["shortcut"], z, stride=stride))
    return ops.relu(y + z)


# Transformer ---------------------------------------------------------------------------------


def transformer(
    tokens: int,
    length: int,
    *,
    width: int = 64,
    heads: int = 4,
    blocks: int = 1,
    seed: int = 0,
    dtype: Any = np.float64,
) -> Problem:
    """Return a causal language model of pre-normalised transformer blocks with GELU.

    Inputs are tokens, an integer array of shape (N, T) with T <= length; the outputs are logits of
    shape (N, T, tokens), and the targets the next tokens, of shape (N, T).

    Parameters
    ----------
    tokens : int
        How many there are.
    length : int
        How many positions have an embedding.
    width : int
        Of the embeddings; hidden layers are four times as wide.
    heads : int
        Of the attention; divides the width.
    blocks : int
    seed : int
        Of the initial parameters: normal with standard deviation 0.02, as in GPT-2.
    dtype : numpy dtype

    Raises
    ------
    ValueError
        If the heads do not divide the width.

    References
    ----------
    A. Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3; normalisation in front:
    A. Radford et al., "Language models are unsupervised multitask learners" (2019), section 2.3.
    """
    if width % heads:
        raise ValueError(f"{heads} heads do not divide a width of {width}")
    draw = _Draw(seed, dtype, _small)
    params = {
        "tokens": draw.weight((tokens, width), tokens, width),
        "positions": draw.weight((length, width), length, width),
        "blocks": [
            {
                "norm1": draw.norm(width),
                "attention": draw.dense(width, 3 * width),
                "mixing": draw.dense(width, width),
                "norm2": draw.norm(width),
                "dense1": draw.dense(width, 4 * width),
                "dense2": draw.dense(4 * width, width),
            }
            for _ in range(blocks)
        ],
        "norm": draw.norm(width),
        "logits": draw.dense(width, tokens),
    }
    return _problem("transformer", partial(_transformer, heads=heads), params)


def _transformer(params: Any, inputs: Array, *, heads: int) -> Array:
    z = ops.embedding(params["tokens"], inputs) + params["positions"][: inputs.shape[1], :]
    for block in params["blocks"]:
        z = z + _attention(block, ops.layer_norm(z, *_affine(block["norm1"])), heads)
        y = ops.layer_norm(z, *_affine(block["norm2"]))
        z = z + _dense(block["dense2"], ops.gelu(_dense(block["dense1"], y)))
    return _dense(params["logits"], ops.layer_norm(z, *_affine(params["norm"])))


def _attention(block: Any, z: Array, heads: int) -> Array:
    """Return, at each place, values of the places up to it, weighted by softmax(q'k / sqrt d)."""
    xp, (samples, places, width) = namespace(z), z.shape
    d = width // heads
    parts = xp.reshape(_dense(block["attention"], z), (samples, places, 3, heads, d))
    qkv = xp.permute_dims(parts, (2, 0, 3, 1, 4))
    q, k, v = qkv[0, ...], qkv[1, ...], qkv[2, ...]
    scores = xp.matmul(q, xp.matrix_transpose(k)) / math.sqrt(d)
    past = xp.tril(xp.ones_like(scores)) > 0
    weights = ops.softmax(xp.where(past, scores, like(z, -math.inf)))
    mixed = xp.permute_dims(xp.matmul(weights, v), (0, 2, 1, 3))
    return _dense(block["mixing"], xp.reshape(mixed, (samples, places, width)))


# Layers, given their parameters ----------------------------------------------------------------


def _conv(params: Any, z: Array, **options: Any) -> Array:
    return ops.conv2d(z, params["weight"], params.get("bias"), **options)


def _dense(params: Any, z: Array) -> Array:
    return ops.linear(z, params["weight"], params["bias"])


def _norm(params: Any, z: Array) -> Array:
    return ops.batch_norm(z, *_affine(params))


def _affine(params: Any) -> tuple[Array, Array]:
    return params["weight"], params["bias"]


def _images(inputs: Array, image: Shape) -> Array:
    return namespace(inputs).reshape(inputs, (-1, *image))


def _flat(z: Array) -> Array:
    return namespace(z).reshape(z, (z.shape[0], -1))


# Initial parameters ----------------------------------------------------------------------------

#: Maps a generator, a shape and the numbers of inputs and outputs of a unit to weights.
_Law = Callable[[np.random.Generator, Sequence[int], int, int], np.ndarray]


class _Draw:
    """Draws the parameters of layers, one after the other."""

    def __init__(self, seed: int, dtype: Any, law: _Law) -> None:
        self._rng, self._dtype, self._law = np.random.default_rng(seed), dtype, law

    def weight(self, shape: Sequence[int], inputs: int, outputs: int) -> np.ndarray:
        return self._law(self._rng, shape, inputs, outputs).astype(self._dtype)

    def conv(self, channels: int, outputs: int, size: int, *, bias: bool = True) -> dict[str, Any]:
        taps = size * size
        weight = self.weight((outputs, channels, size, size), channels * taps, outputs * taps)
        return (
            {"weight": weight, "bias": np.zeros(outputs, self._dtype)}
            if bias
            else {"weight": weight}
        )

    def dense(self, inputs: int, outputs: int) -> dict[str, Any]:
        weight = self.weight((inputs, outputs), inputs, outputs)
        return {"weight": weight, "bias": np.zeros(outputs, self._dtype)}

    def norm(self, channels: int) -> dict[str, Any]:
        return {"weight": np.ones(channels, self._dtype), "bias": np.zeros(channels, self._dtype)}


def _glorot(rng: np.random.Generator, shape: Sequence[int], m: int, n: int) -> np.ndarray:
    bound = math.sqrt(6 / (m + n))
    return rng.uniform(-bound, bound, shape)


def _he(rng: np.random.Generator, shape: Sequence[int], m: int, n: int) -> np.ndarray:
    return math.sqrt(2 / m) * rng.standard_normal(shape)


def _small(rng: np.random.Generator, shape: Sequence[int], m: int, n: int) -> np.ndarray:
    return 0.02 * rng.standard_normal(shape)


def _scaled(units: int, width: float) -> int:
    return max(1, round(width * units))


def _problem(name: str, model: Callable[..., Array], params: Any) -> Problem:
    return Problem(name=name, model=model, loss=ops.cross_entropy, params=params, predict=model)

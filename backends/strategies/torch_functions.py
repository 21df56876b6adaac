"""What PyTorch's functions become of complex tensors that stand for real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ...core.arrays import Array
from ...core.errors import NotAnalytic


class Elementwise(torch.autograd.Function):
    """f(a + ib) = f(a) + i b f'(a), up to O(b^2): from the real function and its derivatives."""

    @staticmethod
    def forward(ctx: Any, f: Callable[[Array], Array], z: Array) -> Array:
        """Return the value, and keep its derivative f'(a) + i b f''(a)."""
        with torch.enable_grad():
            a = z.real.detach().clone().requires_grad_()
            y = f(a)
            slope, bend = torch.zeros_like(a), torch.zeros_like(a)
            if y.requires_grad:
                (slope,) = torch.autograd.grad(y.sum(), a, create_graph=True)
            if slope.requires_grad:
                (bend,) = torch.autograd.grad(slope.sum(), a, materialize_grads=True)
        slope, b = slope.detach(), z.imag
        ctx.save_for_backward(torch.complex(slope, b * bend))
        return torch.complex(y.detach(), b * slope)

    @staticmethod
    def backward(ctx: Any, g: Array) -> Any:
        """Return PyTorch's conjugate convention for a holomorphic function."""
        (slope,) = ctx.saved_tensors
        return None, g * slope.conj()


class Bilinear(torch.autograd.Function):
    """Of B(a + ib, c + id) the terms B(a, c) + i (B(a, d) + B(b, c)), and so in reverse.

    The other is O(h^2), below rounding: three real products and not four, and two where a factor is
    real. PyTorch's complex convolution would lose a tiny imaginary part by a subtraction.
    """

    @staticmethod
    def forward(ctx: Any, B: Callable[[Array, Array], Array], x: Array, y: Array) -> Array:
        """Return the product, and keep the graph of its parts."""
        _, of_x, of_y = ctx.needs_input_grad
        with torch.enable_grad():
            (a, b), (c, d) = _leaves(x, of_x), _leaves(y, of_y)
            ac = B(a, c)
            ad = None if d is None else B(a, d)
            bc = None if b is None else B(b, c)
        ctx.parts = a, c, ac, ad, bc
        im = [part.detach() for part in (ad, bc) if part is not None]
        return torch.complex(ac.detach(), sum(im[1:], im[0]))

    @staticmethod
    def backward(ctx: Any, g: Array) -> Any:
        """Return PyTorch's conjugate convention for a holomorphic function."""
        a, c, ac, ad, bc = ctx.parts
        p, q = _parts(g.resolve_conj())
        gradients: list[Array | None] = []
        for x, cross in ((a, ad), (c, bc)):
            if not x.requires_grad:
                gradients.append(None)
                continue
            re, im = _pulled(ac, x, p), _pulled(ac, x, q)
            gradients.append(torch.complex(re, im if cross is None else im - _pulled(cross, x, p)))
        return None, *gradients


def _leaves(z: Array, differentiated: bool) -> list[Array | None]:
    """Return both parts as variables of their own."""
    return [None if p is None else p.detach().requires_grad_(differentiated) for p in _parts(z)]


def _pulled(y: Array, x: Array, g: Array) -> Array:
    (found,) = torch.autograd.grad(y, x, g, retain_graph=True)
    return found


# What is replaced --------------------------------------------------------------------------

#: Functions of one tensor and constants that are extended by the rule above.
ELEMENTWISE = frozenset(
    """
    abs absolute acos acosh arccos arccosh arcsin arcsinh arctan arctanh asin asinh atan atanh celu
    cos cosh elu erf erfc exp exp2 expm1 gelu hardswish hardtanh leaky_relu lgamma log log10 log1p
    log2 logit logsigmoid mish relu relu6 selu sigmoid silu sin sinh softplus softsign sqrt tan
    tanh tanhshrink rsqrt
    """.split()  # noqa: SIM905
)

#: Products of their first two arguments.
BILINEAR = frozenset({"bmm", "dot", "inner", "matmul", "mm", "mv", "outer", "rmatmul", "tensordot"})

#: Which take real and complex tensors together only once all are complex.
MULTILINEAR = frozenset({"addmm", "addmv", "baddbmm", "bilinear"}) | BILINEAR

#: Linear functions of the first argument that PyTorch has for real tensors only.
LINEAR = frozenset({"avg_pool1d", "avg_pool2d", "avg_pool3d"})

#: Which look at the real part only, and carry no derivative.
_PIECEWISE_CONSTANT = frozenset(
    """
    argmax argmin argsort ceil eq floor ge gt isfinite isinf isnan le lt ne round sign sgn trunc
    """.split()  # noqa: SIM905
)

REFUSED = {
    "norm": "write sqrt(sum(x * x))",
    "imag": "the tensor stands for a real one, which has none",
    "angle": "write atan2",
    "layer_norm": "write it with mean, sqrt and products",
    "batch_norm": "write it with mean, sqrt and products",
}


def _of_real_parts(name: str) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        return getattr(torch, name)(*map(_real, args), **kwargs)

    return function


def _maximum(x: Any, y: Any, sign: float = 1.0) -> Array:
    x, y = _tensors(x, y)
    difference = sign * (_real(x) - _real(y))
    chosen = torch.where(difference > 0, x, y)
    return torch.where(difference == 0, 0.5 * (x + y), chosen)


def _clamp(x: Any, min: Any = None, max: Any = None) -> Array:
    # A number has a slope of 1 on the bounds, as PyTorch's clamp has, a tensor of 1/2.
    x = x if min is None else torch.where(_real(x) >= _real(min), x, _tensors(x, min)[1])
    return x if max is None else torch.where(_real(x) <= _real(max), x, _tensors(x, max)[1])


def _extreme(name: str) -> Callable[..., Any]:
    def function(x: Array, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Array:
        dim, keepdim = kwargs.get("axis", dim), kwargs.get("keepdims", keepdim)
        dims = tuple(range(x.ndim)) if dim is None or dim == () else dim
        a = x.real
        ties = (a == getattr(torch, name)(a, dim=dims, keepdim=True)).to(x.dtype)
        total = (x * ties).sum(dim=dims, keepdim=keepdim)
        return total / ties.sum(dim=dims, keepdim=keepdim)

    return function


def _max(name: str) -> Callable[..., Any]:
    def function(x: Array, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs:
            raise NotAnalytic(
                f"torch's {name} along an axis, of a complex step: use a{name} or {name}imum"
            )
        return _extreme("a" + name)(x)

    return function


def _var(x: Array, dim: Any = None, *, correction: Any = 1, keepdim: bool = False) -> Array:
    dims = tuple(range(x.ndim)) if dim is None else dim
    deviation = x - x.mean(dim=dims, keepdim=True)
    count = x.numel() // deviation.mean(dim=dims).numel()
    return (deviation * deviation).sum(dim=dims, keepdim=keepdim) / (count - correction)


def _vector_norm(
    x: Array, ord: Any = 2, dim: Any = None, keepdim: bool = False, axis: Any = None
) -> Array:
    dim = axis if dim is None else dim
    if ord != 2:
        raise NotAnalytic("torch's vector_norm of a complex step has no extension but for ord=2")
    total = torch.sum(x * x, dim=dim, keepdim=keepdim)
    zero = total.real <= 0
    return torch.where(zero, 0.0 * total, torch.sqrt(torch.where(zero, 1.0 + 0.0 * total, total)))


def _log_softmax(x: Array, dim: Any = None, **_: Any) -> Array:
    shifted = x - x.real.amax(dim=dim, keepdim=True).detach()
    return shifted - torch.log(torch.exp(shifted).sum(dim=dim, keepdim=True))


def _logsumexp(x: Array, dim: Any, keepdim: bool = False) -> Array:
    shift = x.real.amax(dim=dim, keepdim=True).detach()
    total = torch.log(torch.exp(x - shift).sum(dim=dim, keepdim=True)) + shift
    return total if keepdim else total.squeeze(dim)


def _logaddexp(x: Any, y: Any) -> Array:
    top = torch.maximum(_real(x), _real(y)).detach()
    return torch.log(torch.exp(x - top) + torch.exp(y - top)) + top


def _mse_loss(x: Array, y: Array, reduction: str = "mean", **_: Any) -> Array:
    squares = (x - y) * (x - y)
    return {"mean": squares.mean, "sum": squares.sum, "none": lambda: squares}[reduction]()


def _cross_entropy(x: Array, y: Array, reduction: str = "mean", **options: Any) -> Array:
    neutral = (None, -100, 0.0)  # weight=, ignore_index=, label_smoothing= as they are by default
    if any(option not in neutral for option in options.values()):
        raise NotAnalytic("torch's cross_entropy of a complex step takes no option but reduction")
    classes = 1 if x.ndim > 1 else 0
    logs = _log_softmax(x, classes)
    if y.is_floating_point():
        losses = -(logs * y).sum(dim=classes)
    else:
        losses = -logs.gather(classes, y.unsqueeze(classes)).squeeze(classes)
    return {"mean": losses.mean, "sum": losses.sum, "none": lambda: losses}[reduction]()


def _atan2(y: Any, x: Any) -> Array:
    # atan2 is the angle at the real parts plus the angle by which the step turns from there.
    a, b = _real(x).detach(), _real(y).detach()
    turned = (y * a - x * b) / (x * a + y * b)
    return torch.atan2(b, a).detach() + torch.atan(turned)


def _max_pool2d(x: Array, *args: Any, **kwargs: Any) -> Array:
    _, places = torch.nn.functional.max_pool2d_with_indices(x.real, *args, **kwargs)
    return x.flatten(-2).gather(-1, places.flatten(-2)).reshape(places.shape)


def convolution(name: str) -> Callable[..., Array]:
    """Return torch's ``name`` of complex tensors by real ones."""

    def function(x: Any, weight: Any, bias: Any = None, *args: Any, **kwargs: Any) -> Array:
        conv = getattr(torch, name)
        y = Bilinear.apply(lambda x, w: conv(x, w, None, *args, **kwargs), x, weight)
        return y if bias is None else y + bias.reshape(-1, *[1] * (weight.ndim - 2))

    return function


def _linear(x: Any, weight: Any, bias: Any = None) -> Array:
    y = Bilinear.apply(torch.nn.functional.linear, x, weight)
    return y if bias is None else y + bias


def _einsum(equation: Any, *operands: Any) -> Array:
    if len(operands) == 2:
        return Bilinear.apply(lambda x, y: torch.einsum(equation, x, y), *operands)
    return torch.einsum(equation, *all_complex(operands))


def _parts(z: Array) -> tuple[Array, Array | None]:
    """Return both parts, contiguous as BLAS needs them, also where ``.real`` is replaced."""
    if not z.is_complex():
        return z, None
    re, im = torch.view_as_real(z).unbind(-1)
    return re.contiguous(), im.contiguous()


def _dropout(x: Array, *args: Any, **kwargs: Any) -> Array:
    """Draw what the real function draws."""
    return x * torch.nn.functional.dropout(torch.ones_like(x.real), *args, **kwargs)


def _remainder(x: Any, y: Any) -> Array:
    return x - y * torch.floor(_real(x) / _real(y))


EXTENDED: dict[str, Callable[..., Any]] = {
    **{name: _of_real_parts(name) for name in _PIECEWISE_CONSTANT},
    "bool": lambda x: bool(x.real),
    "real": lambda x: x,
    "conj": lambda x: x,
    "conj_physical": lambda x: x,
    "mH": lambda x: x.mT,
    "vdot": lambda x, y: torch.sum(x * y),
    "vecdot": lambda x, y, dim=-1: torch.sum(x * y, dim=dim),
    "maximum": _maximum,
    "fmax": _maximum,
    "minimum": lambda x, y: _maximum(x, y, -1.0),
    "fmin": lambda x, y: _maximum(x, y, -1.0),
    "clamp": _clamp,
    "clip": _clamp,
    "max": lambda x, *args, **kwargs: (
        _maximum(x, args[0])
        if args and isinstance(args[0], torch.Tensor)
        else _max("max")(x, *args, **kwargs)
    ),
    "min": lambda x, *args, **kwargs: (
        _maximum(x, args[0], -1.0)
        if args and isinstance(args[0], torch.Tensor)
        else _max("min")(x, *args, **kwargs)
    ),
    "amax": _extreme("amax"),
    "amin": _extreme("amin"),
    "var": _var,
    "std": lambda *args, **kwargs: torch.sqrt(_var(*args, **kwargs)),
    "vector_norm": _vector_norm,
    "linalg_vector_norm": _vector_norm,
    **{
        name: convolution(name)
        for name in (f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3))
    },
    "linear": _linear,
    "einsum": _einsum,
    "max_pool2d": _max_pool2d,
    "log_softmax": _log_softmax,
    "softmax": lambda x, dim=None, **_: torch.exp(_log_softmax(x, dim)),
    "logsumexp": _logsumexp,
    "logaddexp": _logaddexp,
    "mse_loss": _mse_loss,
    "cross_entropy": _cross_entropy,
    "atan2": _atan2,
    "arctan2": _atan2,
    "hypot": lambda x, y: torch.sqrt(x * x + y * y),
    "remainder": _remainder,
    "dropout": _dropout,
    "sort": lambda x, dim=-1, **kwargs: _sorted(x, dim, **kwargs),
}


def _sorted(x: Array, dim: int, **kwargs: Any) -> Any:
    order = x.real.sort(dim=dim, **kwargs).indices
    return torch.return_types.sort((x.gather(dim, order), order))


# Parts and dtypes ----------------------------------------------------------------------------


def is_complex(x: Any) -> bool:
    """Return whether ``x`` is a complex tensor."""
    return isinstance(x, torch.Tensor) and x.is_complex()


def _real(x: Any) -> Any:
    return x.real if is_complex(x) else x


def _tensors(x: Any, y: Any) -> tuple[Array, Array]:
    dtype = next(a.dtype for a in (x, y) if is_complex(a))
    device = next(a.device for a in (x, y) if isinstance(a, torch.Tensor))
    a, b = (torch.as_tensor(a, dtype=dtype, device=device) for a in (x, y))
    return a, b


def all_complex(tree: Any) -> Any:
    """Return nested arguments with every floating tensor made complex."""
    if isinstance(tree, tuple | list):
        return type(tree)(all_complex(item) for item in tree)
    if isinstance(tree, Mapping):
        return {key: all_complex(item) for key, item in tree.items()}
    if isinstance(tree, torch.Tensor) and tree.is_floating_point():
        return tree.to(tree.dtype.to_complex())
    return tree

"""PyTorch: how its oracles are made, its arrays, and its constant linear operators."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from ..core.arrays import Array
from ..core.oracle import Objective
from ..core.structure import Structure
from .strategies.torch_extension import HolomorphicTorchOracle
from .torch_module import FunctionalModule, check_names
from .torch_module import module_parameters as module_parameters
from .torch_oracle import TorchOracle


def make_oracle(objective: Objective, params: Any) -> TorchOracle:
    """Return the oracle of ``objective`` for parameters structured like ``params``.

    A model that is a :class:`torch.nn.Module` is called with ``params`` (a mapping by name) in
    place of its own parameters. Parameters left out of ``params``, such as frozen ones, are used
    as they stand. So are buffers: evaluating in training mode leaves running statistics alone,
    except that each step of a training run moves them once (:meth:`TorchOracle.held`).

    Raises
    ------
    TypeError, ValueError
        If ``params`` does not name parameters of the module.
    """
    if isinstance(objective.model, torch.nn.Module):
        check_names(objective.model, params)
        objective = objective._replace(model=FunctionalModule(objective.model))
    return TorchOracle(objective, Structure(params))


def make_holomorphic(objective: Objective, structure: Structure) -> TorchOracle:
    """Return the oracle of the analytic extension of ``objective``, of a complex structure."""
    return HolomorphicTorchOracle(objective, structure)


def from_numpy(array: np.ndarray, device: Any = None) -> torch.Tensor:
    """Return a copy of ``array`` as a tensor on ``device``, of the same dtype."""
    return torch.tensor(array, device=device)


def to_numpy(array: torch.Tensor) -> np.ndarray:
    """Return a copy of a tensor on the host, of the same dtype."""
    return array.detach().cpu().numpy().copy()


def version() -> str:
    """Return PyTorch's version."""
    return str(torch.__version__)


def devices() -> list[str]:
    """Return the devices that tensors can live on."""
    accelerator = torch.accelerator.current_accelerator()
    return ["cpu", *(f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count()))]


# Constant linear operators ----------------------------------------------------------------


class _Multiply(torch.autograd.Function):
    """A x for a constant A, as a linear map: its gradient A'g is again one of these.

    PyTorch's own derivative of a sparse product transposes the matrix each time, which costs
    ten such products.
    """

    @staticmethod
    def forward(operator: Any, x: Array) -> Array:
        """Return A x, of a complex x by parts."""
        if not x.is_complex():
            return operator.product(x)
        # x.real would be intercepted by the complex step, to which x stands for a real tensor
        re, im = torch.view_as_real(x.resolve_conj()).unbind(-1)
        return torch.complex(operator.product(re.contiguous()), operator.product(im.contiguous()))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Array) -> None:
        """Keep A."""
        ctx.operator = inputs[0]

    @staticmethod
    def backward(ctx: Any, g: Array) -> tuple[None, Array]:
        """Return A'g."""
        return None, _Multiply.apply(ctx.operator.T, g)

    @staticmethod
    def vmap(info: Any, in_dims: Any, operator: Any, x: Array) -> tuple[Array, int]:
        """Multiply all at once, as the columns of one matrix."""
        columns = x.movedim(in_dims[1], -1)
        flat = columns.reshape(columns.shape[0], -1)
        product = _Multiply.apply(operator, flat)
        return product.reshape(-1, *columns.shape[1:]), columns.ndim - 1


def multiply(operator: Any, x: torch.Tensor) -> torch.Tensor:
    """Return A x for a :class:`~osculant.backends.linear_operators.LinearOperator`."""
    return _Multiply.apply(operator, x)


def compressed(A: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A and A' of a constant matrix, in compressed rows if it is sparse."""
    A = A.detach()
    if A.layout == torch.strided:
        return A, A.mT
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CS[RC] tensor support is in beta")
        columns = A.to_sparse_csc()
        transposed = torch.sparse_csr_tensor(
            columns.ccol_indices(),
            columns.row_indices(),
            columns.values(),
            size=(A.shape[1], A.shape[0]),
            check_invariants=True,
        )
        return A.to_sparse_csr(), transposed


def from_scipy(A: Any, like: torch.Tensor) -> torch.Tensor:
    """Return a scipy.sparse array as a tensor of the dtype and on the device of ``like``."""
    rows = A.tocsr()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.tensor(rows.indptr),
            torch.tensor(rows.indices),
            torch.tensor(rows.data),
            size=rows.shape,
            dtype=like.dtype,
            device=like.device,
            check_invariants=True,
        )

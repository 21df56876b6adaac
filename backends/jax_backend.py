"""JAX: how its oracles are made, and its arrays."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCOO

from ..core.oracle import Objective, Oracle
from ..core.structure import Structure
from .jax_oracle import JAX_TREES, JaxOracle
from .linear_operators import Functions, LinearOperator
from .strategies.jax_extension import HolomorphicJaxOracle

X64_REMEDY = (
    "JAX computes in 32 bits unless jax.config.update('jax_enable_x64', True) is called when "
    "the program starts"
)


def make_oracle(objective: Objective, params: Any) -> JaxOracle:
    """Return the oracle of ``objective`` for parameters structured like ``params``.

    Raises
    ------
    TypeError
        If the functions are not hashable, as compiling them needs.
    """
    try:
        hash(objective)
    except TypeError as error:
        raise TypeError(
            f"JAX compiles a function once and finds it again by its hash, but {error}; pass a "
            "plain function of the parameters"
        ) from error
    return JaxOracle(objective, Structure(params, JAX_TREES))


def make_holomorphic(objective: Objective, structure: Structure) -> Oracle:
    """Return the oracle of the analytic extension of ``objective``, of a complex structure."""
    return HolomorphicJaxOracle(objective, structure)


def from_numpy(array: np.ndarray, device: Any = None) -> jax.Array:
    """Return a copy of ``array`` as a JAX array on ``device``, of the same dtype.

    64-bit integers become 32-bit ones where JAX has no others, if their values fit.

    Raises
    ------
    TypeError
        If ``array`` is float64 and JAX is not set to compute in 64 bits.
    ValueError
        If an integer does not fit.
    """
    array = np.asarray(array)
    copy = jnp.array(array.astype(jax.dtypes.canonicalize_dtype(array.dtype)), device=device)
    if copy.dtype != array.dtype:
        if not np.issubdtype(array.dtype, np.integer):
            raise TypeError(f"the array is {array.dtype}: {X64_REMEDY}")
        if not np.array_equal(copy, array):
            raise ValueError(f"an integer does not fit {copy.dtype}: {X64_REMEDY}")
    return copy


def to_numpy(array: jax.Array) -> np.ndarray:
    """Return a copy of a JAX array on the host, of the same dtype."""
    return np.array(array)


def version() -> str:
    """Return JAX's version."""
    return str(jax.__version__)


def devices() -> list[str]:
    """Return the devices that arrays can live on."""
    return [str(device) for device in jax.devices()]


def from_scipy(A: Any, like: jax.Array) -> BCOO:
    """Return a scipy.sparse array as a BCOO, in the dtype and on the device of ``like``."""
    A = A.tocoo()
    entries = jnp.asarray(A.data, dtype=like.dtype)
    places = jnp.stack([jnp.asarray(A.row, jnp.int32), jnp.asarray(A.col, jnp.int32)], axis=1)
    matrix = BCOO((entries, places), shape=A.shape, unique_indices=True)
    return jax.device_put(matrix, like.device) if like.committed else matrix


# So that operators can be data: their matrices are arguments of what is compiled.
jax.tree_util.register_dataclass(
    LinearOperator, data_fields=["matrix", "transposed"], meta_fields=[]
)
jax.tree_util.register_static(Functions)

"""Settings of the test session, and a composition whose derivatives have closed forms."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

# Read when the frameworks are first imported. The library never sets those of JAX. Tests of 32-bit
# JAX turn the second one off around what they try. The third is for the time: the tests compile
# much and run little; `nox -s matrix` holds JAX to the laws with all of XLA's optimisations.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["JAX_ENABLE_X64"] = "1"
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# A process has one backend of Keras; a folder that cannot be hides the settings in the user's home.
os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ["KERAS_HOME"] = os.devnull

import numpy as np
import pytest


@pytest.fixture(scope="module", autouse=True)
def programs_are_dropped():
    """Drop what JAX compiled for a module: programs are memory maps, and a process has 65,530."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture(params=["float32", "float64"])
def composition(request):
    """z = A x^2, L = sum(c z^4) / 12 + (s z)^2 / 2: rectangular J, H_L neither diagonal nor I.

    J = 2 A diag(x), u = c z^3 / 3 + s (s z), H_L = diag(c z^2) + s s', and
    H = J' H_L J + diag(2 A' u). The parameters x are three leaves, one of them 0-d.
    """
    rng = np.random.default_rng(0)
    A, c, s, x = (rng.standard_normal(shape) for shape in [(4, 6), 4, 4, 6])
    z = A @ x**2
    u = c * z**3 / 3 + s * (s @ z)
    J = 2 * A * x
    H_L = np.diag(c * z**2) + np.outer(s, s)
    dense = SimpleNamespace(
        value=np.sum(c * z**4) / 12 + (s @ z) ** 2 / 2,
        grad=J.T @ u,
        outputs=z,
        hvp=J.T @ H_L @ J + np.diag(2 * A.T @ u),
        ggn=J.T @ H_L @ J,
        jvp=J,
        vjp=J.T,
        loss_hvp=H_L,
    )
    dtype = np.dtype(request.param)
    A, c, s, x = (array.astype(dtype) for array in (A, c, s, x))
    return SimpleNamespace(
        params={"a": x[:2].reshape(2, 1), "b": x[2], "c": [x[3:]]},
        x=x,
        data=(A, {"c": c, "s": s}),
        V=rng.standard_normal((6, 3)).astype(dtype),
        U=rng.standard_normal((4, 3)).astype(dtype),
        dense=dense,
        tol={"rtol": 2e-5, "atol": 2e-5} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-12},
    )


@pytest.fixture(params=["numpy", "torch", "jax"])
def backend(request):
    """Each backend that runs on the host, as its module."""
    from osculant import backends

    reason = backends.available()[request.param]
    if reason:
        pytest.skip(reason)
    return backends.get(request.param)


@pytest.fixture
def real_data():
    """The folder with MNIST and a9a: $OSCULANT_DATA, or ../shared/data beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("OSCULANT_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no data in {folder}; set OSCULANT_DATA to a folder with MNIST and a9a")
    return folder

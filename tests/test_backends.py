import subprocess
import sys
from types import SimpleNamespace
from typing import NamedTuple

import array_api_strict
import numpy as np
import pytest
from array_api_compat import array_namespace

import osculant
from osculant import BackendUnavailable, backends


def square(x):
    return (x**2).sum()


# Which there are -------------------------------------------------------------------------------


@pytest.fixture
def uninstall(monkeypatch):
    """Make a framework look as if it were not installed, or put a substitute in its place."""

    def replace(name, substitute=None):
        monkeypatch.delitem(sys.modules, f"osculant.backends.{name}_backend", raising=False)
        monkeypatch.setitem(sys.modules, name, substitute)

    return replace


def test_importing_osculant_imports_no_framework():
    code = "import sys, osculant; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(run.stdout.split())
    assert {"numpy", "array_api_compat", "optree", "osculant"} <= loaded
    assert not loaded & {"torch", "jax", "cupy", "scipy", "rich", "cyclopts", "matplotlib", "optax"}


def test_available_names_what_is_missing(uninstall):
    uninstall("torch")
    uninstall("cupy")
    reasons = backends.available()
    assert list(reasons) == ["numpy", "torch", "jax", "cupy"]
    assert reasons["numpy"] is None
    assert reasons["torch"] == "PyTorch is not installed: pip install 'osculant[torch]'"
    assert "osculant[cupy]" in reasons["cupy"]


def test_a_missing_framework_is_an_error_with_a_remedy(uninstall):
    uninstall("jax")
    with pytest.raises(BackendUnavailable, match=r"pip install 'osculant\[jax\]'"):
        backends.get("jax")
    with pytest.raises(ImportError):
        osculant.oracle(square, np.zeros(2), backend="jax")


class BrokenLibrary:
    """An importer for which CuPy is there, but its shared library is not."""

    @staticmethod
    def find_spec(name, *_):
        if name == "cupy":
            raise ImportError("libcudart.so.12: cannot open shared object file")


def test_a_broken_framework_is_told_from_a_missing_one(monkeypatch):
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [BrokenLibrary, *sys.meta_path])
    with pytest.raises(BackendUnavailable, match=r"CuPy is installed but .*libcudart"):
        backends.get("cupy")


class NoDevice(Exception):
    pass


@pytest.mark.parametrize("raises", [True, False])
def test_cupy_needs_a_gpu(uninstall, raises):
    def device_count():
        if raises:
            raise NoDevice("cudaErrorNoDevice")
        return 0

    runtime = SimpleNamespace(getDeviceCount=device_count, CUDARuntimeError=NoDevice)
    uninstall("cupy", SimpleNamespace(cuda=SimpleNamespace(runtime=runtime)))
    with pytest.raises(BackendUnavailable, match=r"^CuPy is installed but finds no GPU"):
        backends.get("cupy")


def test_an_unknown_backend_is_answered_with_the_known():
    with pytest.raises(ValueError, match=r"'tensorflow'.*numpy, torch, jax, cupy"):
        backends.get("tensorflow")
    with pytest.raises(ValueError, match="'tensorflow'"):
        osculant.oracle(square, np.zeros(2), backend="tensorflow")


@pytest.mark.parametrize("name", ["numpy", "torch", "jax", "cupy"])
def test_every_backend_has_the_five_functions(name):
    if backends.available()[name] is not None:
        pytest.skip(backends.available()[name])
    backend = backends.get(name)
    assert isinstance(backend.version(), str) and backend.devices()
    array = backend.from_numpy(np.asarray([1.0, 2.0]))
    oracle = osculant.oracle(square, array, backend=name)
    np.testing.assert_allclose(backend.to_numpy(oracle.at(array).grad), [2, 4])


# Which one it is -------------------------------------------------------------------------------


def test_the_backend_is_that_of_the_arrays():
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    assert backends.framework({"a": [np.zeros(2)], "b": np.float64(1)}) == "numpy"
    assert backends.framework([torch.zeros(2)]) == "torch"
    assert backends.framework(jax.numpy.zeros(2)) == "jax"
    assert backends.framework(array_api_strict.zeros(2)) == "array_api_strict"
    assert type(osculant.oracle(square, torch.zeros(2))).__name__ == "TorchOracle"
    assert type(osculant.oracle(square, jax.numpy.zeros(2))).__name__ == "JaxOracle"
    assert type(osculant.oracle(square, np.zeros(2))).__name__ == "TapeOracle"


def test_any_array_api_namespace_goes_through_the_tape():
    x = array_api_strict.asarray([1.0, 2.0])
    oracle = osculant.oracle(lambda x: array_namespace(x).sum(x**2), x)
    assert type(oracle).__name__ == "TapeOracle"
    grad = oracle.at(x).grad
    assert array_api_strict.all(grad == 2 * x) and type(grad) is type(x)


def test_nothing_moves_between_frameworks():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"backend='torch'.*arrays of numpy.*from_numpy"):
        osculant.oracle(square, np.zeros(2), backend="torch")
    with pytest.raises(TypeError, match="backend='numpy'"):
        osculant.oracle(square, torch.zeros(2), backend="numpy")
    with pytest.raises(TypeError, match="mix arrays of numpy and torch"):
        osculant.oracle(square, {"a": np.zeros(2), "b": torch.zeros(2)})


def test_the_error_for_jax_says_how_float64_is_kept():
    pytest.importorskip("jax")
    with pytest.raises(TypeError, match=r"from_numpy.*jax_enable_x64"):
        osculant.oracle(square, [1.0, 2.0], backend="jax")


# What the parameters may be --------------------------------------------------------------------


@pytest.mark.parametrize("x0", [2, 2.0, [1, 2.0], (1, 2), [[1.0], [2.0]]])
def test_numbers_become_a_float64_array(x0):
    array = backends.as_parameters(x0)
    assert isinstance(array, np.ndarray) and array.dtype == np.float64
    assert array.tolist() == np.asarray(x0).tolist()
    assert osculant.oracle(square, x0).size == array.size


class Pair(NamedTuple):
    a: float
    b: float


@pytest.mark.parametrize(
    "params", [[np.zeros(2), np.zeros(3)], {"a": 1.0}, Pair(1.0, 2.0), [True], [], [1.0, None]]
)
def test_trees_stay_trees(params):
    assert backends.as_parameters(params) is params


@pytest.mark.parametrize(
    ("x0", "error", "message"),
    [
        ("x", TypeError, "a str, hold no array"),
        ([], TypeError, "hold no array"),
        ({"a": 1.0}, TypeError, "hold no array"),
        ([np.zeros(2), 1.0], TypeError, "parameter '1' is a float, not an array"),
        (np.zeros(2, dtype=int), TypeError, "int64"),
        ({"a": np.zeros(2), "b": np.zeros(2, np.float32)}, TypeError, "parameter 'b'.*float32"),
    ],
)
def test_what_cannot_be_parameters(x0, error, message):
    with pytest.raises(error, match=message):
        osculant.oracle(square, x0)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"fun": square},
        {"x0": np.zeros(2)},
        {"fun": square, "x0": np.zeros(2), "loss": square},
        {"fun": square, "x0": np.zeros(2), "params": np.zeros(2)},
        {"fun": square, "params": np.zeros(2)},
        {"model": square, "params": np.zeros(2)},
        {"model": square, "loss": square, "x0": np.zeros(2)},
    ],
)
def test_a_function_is_given_in_one_of_two_forms(arguments):
    with pytest.raises(TypeError, match=r"oracle\(fun, x0\) or as oracle\(model="):
        osculant.oracle(**arguments)


def test_a_model_that_is_no_module_needs_parameters():
    with pytest.raises(TypeError, match="params= is needed"):
        osculant.oracle(model=square, loss=square)

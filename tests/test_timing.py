"""Products timed side by side: what is called when, and what is made of it. No time is tested."""

import numpy as np
import pytest

import osculant
from osculant import backends, bench
from osculant.testing import Timing, Wrapped, WrappedPoint, time_products
from osculant.testing.timing import COLUMNS


class Clock:
    """A clock that only the products of :class:`Slow` oracles advance."""

    now = 0.0

    def __call__(self):
        return self.now


class SlowPoint(WrappedPoint):
    @property
    def grad(self):
        self.oracle.spend("grad", ())
        return self.inner.grad * self.oracle.error

    def ask(self, product, *arguments):
        result = super().ask(product, *arguments)
        self.oracle.spend(product, arguments)
        return result * self.oracle.error


class Slow(Wrapped):
    """An oracle whose products take as long as it is told, times 1, 2, 9, 1, 2, 9, ..."""

    point = SlowPoint

    def __init__(self, inner, clock, log, error=1.0, **seconds):
        super().__init__(inner)
        self.clock, self.log, self.error, self.seconds = clock, log, error, seconds

    def spend(self, product, arguments):
        name = f"{product} of {COLUMNS}" if arguments and arguments[0].ndim == 2 else str(product)
        self.log.append((self.seconds["name"], name))
        times = self.log.count(self.log[-1]) - 1
        self.clock.now += self.seconds.get(name, 1.0) * (1, 2, 9)[times % 3]


def quadratic():
    A = np.diag(np.arange(1.0, 6.0))
    x = np.ones(5)
    return osculant.oracle(lambda x: x @ (A @ x) / 2, x), x


def timed(**options):
    oracle, x = quadratic()
    clock, log = Clock(), []
    slow = Slow(oracle, clock, log, name="slow", hvp=4.0)
    wrong = Slow(oracle, clock, log, error=1.5, name="wrong", grad=2.0)
    options = {"repeats": 3, **options}
    return time_products({"slow": (slow, x), "wrong": (wrong, x)}, clock=clock, **options), log


def test_medians_and_their_multiples_of_the_gradient():
    timings, _ = timed(repeats=5)  # 2, 9, 1, 2, 9 after what compiles
    assert timings["slow"]["gradient"].seconds == 2.0
    assert timings["slow"]["hvp"] == Timing(8.0, 4.0, 0.0)
    assert timings["wrong"]["gradient"].seconds == 4.0
    assert timings["wrong"]["hvp"][:2] == (2.0, 0.5)


def test_all_take_turns_after_each_has_been_called_once():
    _, log = timed(repeats=3)
    rounds = [log[i : i + len(log) // 4] for i in range(0, len(log), len(log) // 4)]
    products = ["grad", "hvp", f"hvp of {COLUMNS}", "vhv", "third"]
    asked = [(name, p) for name in ("slow", "wrong") for p in products]
    assert len(rounds) == 4
    for each in rounds:
        assert [entry for entry in each if entry[1] != "value"] == asked


def test_a_result_that_differs_is_told():
    timings, _ = timed()
    assert all(timing.difference == 0.0 for timing in timings["slow"].values())
    assert timings["wrong"]["hvp"].difference == pytest.approx(0.5)


def test_what_an_oracle_does_not_have_is_left_out(backend):
    def model(x, A):
        return A @ x

    def loss(z, y):
        return ((z - y) ** 2).sum()

    arrays = np.ones(2), np.arange(6.0).reshape(3, 2), np.ones(3)
    x, A, y = map(backend.from_numpy, arrays)
    whole = osculant.oracle(model=model, loss=loss, params=x)
    plain = osculant.oracle(lambda x, A, y: loss(model(x, A), y), x)
    stepped = osculant.oracle(model=model, loss=loss, params=x, products="finite-difference")
    subjects = {"whole": whole, "plain": plain, "stepped": stepped}
    timings = time_products({k: (v, x, A, y) for k, v in subjects.items()}, repeats=1)
    every = {"value", "gradient", "hvp", f"hvp of {COLUMNS}", "vhv", "third"}
    gauss_newton = {"ggn", "vgv", "jvp", "vjp"}
    assert set(timings["whole"]) == every | gauss_newton
    assert set(timings["plain"]) == every
    assert set(timings["stepped"]) == (every | gauss_newton) - {"third"}
    assert all(t.difference < 1e-4 for own in timings.values() for t in own.values())


@pytest.mark.parametrize("arguments", [({},), ({"a": None}, 0)])
def test_nothing_to_time_is_refused(arguments):
    subjects, *repeats = arguments
    with pytest.raises(ValueError, match=r"nothing to time|at least 1"):
        time_products(subjects, **({"repeats": repeats[0]} if repeats else {}))


@pytest.mark.parametrize("wrap", [lambda oracle, x: oracle, lambda oracle, x: (x, oracle)])
def test_what_is_no_subject_is_refused(wrap):
    with pytest.raises(TypeError, match=r"'mine' is no tuple \(oracle, params"):
        time_products({"mine": wrap(*quadratic())})


@pytest.mark.parametrize("network", bench.NETWORKS)
def test_the_networks_of_the_command_run_on_every_backend(network):
    names = [name for name, reason in backends.available().items() if reason is None]
    subjects = bench.subjects(network, names, ["autodiff"], samples=2, seed=0, dtype="float32")
    values = {name: float(o.value(o.ravel(p), *data)) for name, (o, p, *data) in subjects.items()}
    assert set(values) == set(names)
    np.testing.assert_allclose(list(values.values()), values["numpy"], rtol=1e-5)


def test_the_table_has_a_row_a_product_and_says_what_is_missing():
    from rich.console import Console

    timings = {
        "a": {"gradient": Timing(2e-3, 1.0, 0.0), "ggn": Timing(3e-3, 1.5, 0.0)},
        "b, complex-step": {"gradient": Timing(4e-3, 1.0, 3e-7)},
    }
    console = Console(width=80)
    with console.capture() as captured:
        console.print(*bench.tables(timings))
    rows = [line.split() for line in captured.get().splitlines()]
    assert rows.index(["gradient", "2.00", "4.00"]) < rows.index(["gradient", "1.00", "1.00"])
    assert ["ggn", "3.00", "-"] in rows and ["ggn", "1.50", "-"] in rows
    assert ["differs", "by", "0e+00", "3e-07"] in rows

"""The solvers inside torch.optim."""

import copy
import io

import numpy as np
import pytest

import osculant
from osculant.core import drive

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from osculant.adapters import torch_adapter  # noqa: E402

BOTH = [torch_adapter.TrustRegion, torch_adapter.NewtonKrylov]


def regression(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    inputs = torch.randn(20, 3, generator=generator)
    targets = torch.sin(inputs.sum(dim=1, keepdim=True))
    return model.to(dtype), inputs.to(dtype), targets.to(dtype)


def closure_of(model, inputs, targets):
    return lambda: torch.nn.functional.mse_loss(model(inputs), targets)


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize("optimizer_of", BOTH)
def test_it_is_the_solver_and_nothing_else(optimizer_of):
    """Ten steps equal ten steps of the solver on the functional oracle."""
    model, inputs, targets = regression()
    oracle = osculant.oracle(model=model, loss=torch.nn.functional.mse_loss)
    start = oracle.ravel(dict(model.named_parameters()))
    solver = getattr(osculant, optimizer_of.__name__)()
    optimizer = optimizer_of(model.parameters())
    for _ in range(10):
        optimizer.step(closure_of(model, inputs, targets))
    batches = [(inputs, targets)] * 10
    solution = drive.fit(oracle, oracle.unravel(start), batches, solver=solver)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), solution.x[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("optimizer_of", BOTH)
def test_an_oracle_goes_around_the_closures(optimizer_of):
    """Weight decay by an oracle around the closure's is that in the closure's loss."""
    model, inputs, targets = regression()
    twin = copy.deepcopy(model)
    around = optimizer_of(
        model.parameters(), around=lambda oracle: osculant.Regularized(oracle, 0.1)
    )
    within = optimizer_of(twin.parameters())
    closure = closure_of(twin, inputs, targets)
    for _ in range(5):
        around.step(closure_of(model, inputs, targets))
        within.step(lambda: closure() + 0.05 * sum(p.square().sum() for p in twin.parameters()))
    torch.testing.assert_close(flat(model), flat(twin), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("optimizer_of", BOTH)
def test_loss_falls_in_float32_and_gradients_are_left_alone(optimizer_of):
    model, inputs, targets = regression(torch.float32)
    closure = closure_of(model, inputs, targets)
    optimizer = optimizer_of(model.parameters())
    first = optimizer.step(closure)
    for _ in range(15):
        optimizer.step(closure)
    assert closure().item() < 0.1 * first.item()
    assert not first.requires_grad and first.dtype == torch.float32
    assert all(p.grad is None and p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("optimizer_of", BOTH)
def test_state_dict_round_trip_is_plain_tensors_and_changes_nothing(optimizer_of):
    model, inputs, targets = regression(torch.float32)
    optimizer = optimizer_of(model.parameters())
    for _ in range(3):
        optimizer.step(closure_of(model, inputs, targets))

    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)  # plain tensors: nothing to unpickle
    assert all(isinstance(v, torch.Tensor) for v in saved["state"][0].values())

    twin = copy.deepcopy(model)
    resumed = optimizer_of(twin.parameters())
    resumed.load_state_dict(saved)
    for _ in range(3):
        optimizer.step(closure_of(model, inputs, targets))
        resumed.step(closure_of(twin, inputs, targets))
    assert torch.equal(flat(model), flat(twin))
    for name, value in optimizer.state_dict()["state"][0].items():
        assert torch.equal(value, resumed.state_dict()["state"][0][name]), name


def test_lr_scales_the_step_by_group():
    def moved(**groups):
        a = torch.nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
        b = torch.nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
        optimizer = torch_adapter.TrustRegion(
            [{"params": [a], **groups}, {"params": [b]}], radius=100.0
        )
        optimizer.step(lambda: (a**2 + b**2).sum())
        return 3 - a.item(), 3 - b.item()

    assert moved() == pytest.approx((3.0, 3.0))
    assert moved(lr=0.5) == pytest.approx((1.5, 3.0))


def test_lr_scheduler_drives_it():
    x = torch.nn.Parameter(torch.tensor([8.0], dtype=torch.float64))
    optimizer = torch_adapter.TrustRegion([x], lr=0.5, radius=100.0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=2.0)
    optimizer.step(lambda: (x**2).sum())
    assert x.item() == pytest.approx(4.0)
    scheduler.step()
    optimizer.step(lambda: (x**2).sum())
    assert x.item() == pytest.approx(0.0)


def test_frozen_parameters_stay():
    model, inputs, targets = regression()
    model[0].weight.requires_grad_(False)
    frozen = model[0].weight.clone()
    torch_adapter.NewtonKrylov(model.parameters()).step(closure_of(model, inputs, targets))
    assert torch.equal(model[0].weight, frozen)


def test_a_step_draws_one_dropout_mask():
    model, inputs, targets = regression()
    model.insert(2, torch.nn.Dropout(0.5))
    masks = []
    model[2].register_forward_hook(lambda module, args, out: masks.append(out == 0))
    torch.manual_seed(0)
    optimizer = torch_adapter.TrustRegion(model.parameters())
    optimizer.step(closure_of(model, inputs, targets))
    assert len(masks) >= 2 and all(torch.equal(mask, masks[0]) for mask in masks)
    seen = len(masks)
    optimizer.step(closure_of(model, inputs, targets))
    assert not torch.equal(masks[seen], masks[0])


@pytest.mark.parametrize(
    ("closure_of", "error", "message"),
    [
        (lambda x: None, TypeError, "needs a closure"),
        (lambda x: lambda: _backward((x**2).sum()), RuntimeError, r"called backward\(\)"),
        (lambda x: lambda: (x**2).sum().item(), TypeError, "the closure returned a float"),
        (lambda x: lambda: x**2, ValueError, r"shape \(2,\)"),
        (lambda x: lambda: (x.detach() ** 2).sum(), osculant.NotDifferentiable, "does not depend"),
        (
            lambda x: lambda: (torch.ones(2, requires_grad=True) ** 2).sum(),
            osculant.NotDifferentiable,
            "of another model",
        ),
        (
            lambda x: lambda: (x.exp(), (x.exp() ** 2).sum()),
            osculant.NotDifferentiable,
            "other than through the outputs",
        ),
    ],
)
def test_closures_that_cannot_work_say_why_and_move_nothing(closure_of, error, message):
    x = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    with pytest.raises(error, match=message):
        torch_adapter.TrustRegion([x]).step(closure_of(x))
    assert x.tolist() == [1.0, 2.0]


def _backward(loss):
    loss.backward()
    return loss


def test_loss_that_is_not_finite_moves_nothing():
    x = torch.nn.Parameter(torch.tensor([-1.0]))
    with pytest.warns(RuntimeWarning, match="not finite where the step starts"):
        loss = torch_adapter.NewtonKrylov([x]).step(lambda: x.log().sum())
    assert np.isnan(loss.item()) and x.item() == -1.0


@pytest.mark.parametrize(
    "solver",
    [osculant.TrustRegion(curvature="gauss-newton"), osculant.CurveBall(), osculant.GaussNewton()],
    ids=lambda solver: type(solver).__name__,
)
def test_a_closure_that_returns_its_outputs_has_gauss_newton_products(solver):
    """Five steps equal five of the solver on the oracle of the model and the loss."""
    model, inputs, targets = regression()
    oracle = osculant.oracle(model=model, loss=torch.nn.functional.mse_loss)
    start = dict(model.named_parameters())
    solution = drive.fit(oracle, start, [(inputs, targets)] * 5, solver=solver)

    def closure():
        outputs = model(inputs)
        return outputs, torch.nn.functional.mse_loss(outputs, targets)

    optimizer = torch_adapter.SolverOptimizer(model.parameters(), solver)
    for _ in range(5):
        optimizer.step(closure)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), solution.x[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (osculant.TrustRegion(curvature="gauss-newton"), r"no ggn.*return \(outputs, loss\)"),
        (osculant.KFAC(), "hides the model's layers: train by osculant.fit"),
    ],
)
def test_what_a_closure_lacks_is_said_in_its_own_terms(solver, message):
    x = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(osculant.ProductUnavailable, match=message):
        torch_adapter.SolverOptimizer([x], solver).step(lambda: (x**2).sum())
    assert x.item() == 1.0


def test_a_solver_goes_by_its_name():
    x = torch.nn.Parameter(torch.ones(1))
    assert torch_adapter.SolverOptimizer([x], "lbfgs").solver == osculant.LBFGS()
    with pytest.raises(ValueError, match="there are: auto"):
        torch_adapter.SolverOptimizer([x], "lbgfs")


def test_parameters_that_join_later_start_the_solver_anew():
    def steps(model, optimizer, number):
        for _ in range(number):
            optimizer.step(closure_of(model, inputs, targets))

    model, inputs, targets = regression()
    model[0].requires_grad_(False)
    optimizer = torch_adapter.TrustRegion(model.parameters())
    steps(model, optimizer, 2)
    model[0].requires_grad_(True)
    other = copy.deepcopy(model)
    steps(model, optimizer, 2)
    steps(other, torch_adapter.TrustRegion(other.parameters()), 2)
    assert torch.equal(flat(model), flat(other))

    last = torch_adapter.TrustRegion(model[2].parameters())
    steps(model, last, 1)
    last.add_param_group({"params": model[0].parameters()})
    before = model[0].weight.clone()
    steps(model, last, 1)
    assert not torch.equal(model[0].weight, before)


def test_a_copy_goes_on_as_the_original_does():
    model, inputs, targets = regression()
    model.insert(1, torch.nn.BatchNorm1d(5, dtype=torch.float64))
    optimizer = torch_adapter.TrustRegion(model.parameters(), buffers=model.buffers())
    optimizer.step(closure_of(model, inputs, targets))
    twin, copied = copy.deepcopy((model, optimizer))
    for m, o in ((model, optimizer), (twin, copied)):
        o.step(closure_of(m, inputs, targets))
    assert torch.equal(flat(model), flat(twin))
    assert torch.equal(model[1].running_var, twin[1].running_var)


@pytest.mark.parametrize(
    "other",
    [
        lambda params: torch_adapter.NewtonKrylov(params),
        lambda params: torch_adapter.TrustRegion(params, memory=3),
        lambda params: torch.optim.Adam(params),
    ],
)
def test_the_state_of_another_optimizer_is_refused(other):
    model, inputs, targets = regression()
    closure = closure_of(model, inputs, targets)
    stranger = other(model.parameters())
    closure().backward()
    stranger.step(closure)
    optimizer = torch_adapter.TrustRegion(model.parameters())
    optimizer.load_state_dict(stranger.state_dict())
    with pytest.raises(osculant.CheckpointMismatch, match="not one of TrustRegion"):
        optimizer.step(closure)
    optimizer.state.clear()
    optimizer.step(closure)


@pytest.mark.parametrize("solver", [osculant.LBFGS(memory=3), osculant.Auto()])
def test_a_state_that_was_given_or_taken_stays_as_it_is(solver):
    x = torch.nn.Parameter(torch.linspace(-1, 1, 8, dtype=torch.float64))
    weights = torch.arange(1.0, 9.0)
    optimizer = torch_adapter.SolverOptimizer([x], solver)

    def step():
        optimizer.step(lambda: (x**4).sum() + (weights * x**2).sum())
        return x.detach().clone()

    for _ in range(4):
        start = step()
    given, expected, _ = optimizer.state_dict(), step(), step()
    for _ in range(2):  # the second time from what the first has taken
        with torch.no_grad():
            x.copy_(start)
        optimizer.load_state_dict(given)
        torch.testing.assert_close(step(), expected, rtol=0, atol=0)
        step()


def test_the_solver_may_be_changed_for_one_of_the_same_state():
    x = torch.nn.Parameter(torch.linspace(-1, 1, 4))
    optimizer = torch_adapter.SolverOptimizer([x], osculant.LBFGS(memory=5))
    inits = []

    class Watched(osculant.LBFGS):
        def init(self, oracle, x, *data):
            inits.append(self)
            return super().init(oracle, x, *data)

    for solver in (Watched(memory=5), Watched(memory=5, curvature=0.5)):
        optimizer.solver = solver
        for _ in range(3):
            optimizer.step(lambda: (x**4).sum())
    assert len(inits) == 2  # once each: a state is as large as its pairs
    optimizer.solver = osculant.LBFGS(memory=3)
    with pytest.raises(osculant.CheckpointMismatch, match="not one of LBFGS"):
        optimizer.step(lambda: (x**4).sum())


def test_weight_decay_of_a_group_is_refused():
    x = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match="add it to the loss"):
        torch_adapter.TrustRegion([{"params": [x], "weight_decay": 0.1}])

"""Newton-Krylov on data that lie on several processes.

    torchrun --nproc-per-node 2 examples/data_parallel.py

Each process makes its own samples, of another number, and all train one network. Value, gradient
and each Hessian product are means over all samples, by one all-reduce each, so that the solver
takes the same step on every process.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

import osculant
from osculant.backends.distributed import DataParallel


def network() -> torch.nn.Module:
    """Return the same network on every process."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)]
    return torch.nn.Sequential(*layers).double()


def samples(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and targets of this process: 200, 300, 400, ... of them."""
    generator = torch.Generator().manual_seed(rank)
    inputs = torch.rand(200 + 100 * rank, 2, dtype=torch.float64, generator=generator)
    return inputs, torch.sin(3 * inputs).prod(dim=1, keepdim=True)


def train(epochs: int = 30) -> osculant.Solution:
    """Return the trained parameters, the same on every process."""
    rank, model = dist.get_rank(), network()
    inputs, targets = samples(rank)
    oracle = DataParallel(osculant.oracle(model=model, loss=torch.nn.functional.mse_loss))
    # Batches differ in size, not in number: an epoch must be as many steps everywhere.
    batches = osculant.Batches((inputs, targets), len(inputs) // 4, seed=rank)
    params = dict(model.named_parameters())
    return osculant.fit(oracle, params, batches, solver="newton-krylov", epochs=epochs)


def main() -> None:
    dist.init_process_group("gloo")  # "nccl" where each process has a GPU
    solution = train()
    if dist.get_rank() == 0:
        losses = solution.history["fun"]
        print(f"loss {losses[0]:.1e} -> {losses[-1]:.1e} in {solution.nit} steps")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

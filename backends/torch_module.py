"""A ``torch.nn.Module`` as a function of its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from ..core.arrays import Array
from ..core.layers import as_places, recorder


def module_parameters(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters of ``module`` that are to be trained, by name; tied ones once."""
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}


class FunctionalModule:
    """A module as a function of its parameters; only in :meth:`moving` do its buffers move.

    Parameters
    ----------
    module : torch.nn.Module
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self._moving = False
        self._moved: dict[str, torch.Tensor] = {}

    def __call__(self, params: Mapping[str, Array], *inputs: Any) -> Any:
        """Return the outputs."""
        buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        with _reporting(self.module):
            outputs = torch.func.functional_call(self.module, (dict(params), buffers), inputs)
        if self._moving and not self._moved:
            self._moved = buffers
        return outputs

    @contextmanager
    def moving(self) -> Iterator[None]:
        """Give the module, in the end, the buffers that the first evaluation in here left."""
        self._moving = True
        try:
            yield
            finite = [torch.isfinite(buffer).all() for buffer in self._moved.values()]
            if finite and bool(torch.stack(finite).all()):
                with torch.no_grad():
                    for name, buffer in self.module.named_buffers():
                        buffer.copy_(self._moved[name])
        finally:
            self._moving, self._moved = False, {}


@contextmanager
def _reporting(module: torch.nn.Module) -> Iterator[None]:
    """Let dense and convolution layers of ``module`` report to the recorder, if there is one."""
    listener = recorder()
    if listener is None:
        yield
        return

    def report(layer: Any, args: tuple[Any, ...], outputs: Array) -> Array:
        def inputs() -> Array:
            if isinstance(layer, torch.nn.Linear):
                return as_places(args[0])
            columns = torch.nn.functional.unfold(
                args[0], layer.kernel_size, layer.dilation, layer.padding, layer.stride
            )
            return columns.mT

        return listener.report(
            layer.weight,
            layer.bias,
            inputs,
            outputs,
            outputs_first=True,
            convolution=isinstance(layer, torch.nn.Conv2d),
        )

    hooks = [layer.register_forward_hook(report) for layer in module.modules() if _is_dense(layer)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _is_dense(layer: torch.nn.Module) -> bool:
    """Whether it is a layer that factors are known for."""
    if isinstance(layer, torch.nn.Conv2d):
        plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        return plain and layer.groups == 1
    return isinstance(layer, torch.nn.Linear)


def check_names(module: torch.nn.Module, params: Any) -> None:
    """Raise unless ``params`` is a mapping by names of parameters of ``module``."""
    if not isinstance(params, Mapping):
        raise TypeError(
            f"the parameters of a torch.nn.Module are a mapping by name, not a "
            f"{type(params).__name__}: leave params= out, or pass dict(model.named_parameters())"
        )
    unknown = set(params) - {name for name, _ in module.named_parameters(remove_duplicate=False)}
    if unknown:
        raise ValueError(
            f"the module has no parameter called {', '.join(sorted(map(repr, unknown)))}"
        )

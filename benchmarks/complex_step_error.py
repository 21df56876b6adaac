"""The error of numerical derivatives against the step: figure 1 of Shen et al. (2020).

    python benchmarks/complex_step_error.py [--out docs/reports]

Relative errors of first and second derivatives by forward, central, complex and multicomplex
differences, for h from 1e-1 to 1e-100. The text of the paper has lost its function; this is the
one on which the complex step has been shown since W. Squire and G. Trapp, SIAM Review 40 (1998),
f(x) = e^x / sqrt(sin^3 x + cos^3 x) at x = 1.5. Writes complex_step_error.png and .md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from osculant import multicomplex

X = 1.5
EPS = 2.0**-52
#: f'(1.5) and f''(1.5), rounded from 80 digits.
EXACT = {1: 4.053427893898620657714, 2: 9.463073681596603352536}


def f(x: Any) -> Any:
    return np.exp(x) / np.sqrt(np.sin(x) ** 3 + np.cos(x) ** 3)


def gradient(x: Any) -> Any:
    """f' by hand: for second derivatives, the complex step goes over a gradient."""
    s, c = np.sin(x), np.cos(x)
    p = s**3 + c**3
    return f(x) * (1 - 1.5 * s * c * (s - c) / p)


def _multicomplex(h: float, order: int) -> Any:
    return multicomplex.derivative(f, np.array(X), *[np.array(1.0)] * order, h=h)


Scheme = Callable[[float], Any]

#: By order of the derivative and name.
SCHEMES: dict[int, dict[str, Scheme]] = {
    1: {
        "forward": lambda h: (f(X + h) - f(X)) / h,
        "central": lambda h: (f(X + h) - f(X - h)) / (2 * h),
        "complex": lambda h: np.imag(f(X + 1j * h)) / h,
        "multicomplex": lambda h: _multicomplex(h, 1),
    },
    2: {
        "forward": lambda h: (f(X + 2 * h) - 2 * f(X + h) + f(X)) / h**2,
        "central": lambda h: (f(X + h) - 2 * f(X) + f(X - h)) / h**2,
        "complex": lambda h: np.imag(gradient(X + 1j * h)) / h,
        "multicomplex": lambda h: _multicomplex(h, 2),
    },
}


def relative_error(order: int, scheme: Scheme, h: float) -> float:
    return abs(float(scheme(h)) - EXACT[order]) / EXACT[order]


def errors(steps: Sequence[float]) -> dict[int, dict[str, list[float]]]:
    """Return the relative errors by order and scheme, one for each step."""
    return {
        order: {
            name: [relative_error(order, scheme, h) for h in steps]
            for name, scheme in schemes.items()
        }
        for order, schemes in SCHEMES.items()
    }


def figure(path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps = [10.0 ** (-k / 4) for k in range(4, 401)]
    fig, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    styles = {"forward": "-", "central": "-", "complex": "-", "multicomplex": "--"}
    for axis, (order, by_name) in zip(axes, errors(steps).items(), strict=True):
        for name, values in by_name.items():
            shown = np.maximum(values, EPS / 4)  # an error of zero has no logarithm
            axis.loglog(steps, shown, styles[name], label=name, linewidth=1.5)
        axis.axhline(4 * EPS, color="gray", linewidth=0.8, linestyle=":")
        axis.set(title=f"derivative of order {order}", xlabel="h", ylim=(1e-17, 1e3))
        axis.set_xticks([10.0**-k for k in range(0, 101, 20)])
        axis.invert_xaxis()
    axes[0].set_ylabel("relative error (dotted: 4 machine epsilons)")
    axes[1].legend()
    fig.savefig(path, dpi=120)
    pyplot.close(fig)


def table() -> str:
    exponents = [1, 2, 4, 6, 8, 10, 12, 16, 20, 30, 50, 75, 100]
    found = errors([10.0**-k for k in exponents])
    columns = [(order, name) for order, by_name in found.items() for name in by_name]
    rows = [
        ["h", *(f"{name}, {'first' if order == 1 else 'second'}" for order, name in columns)],
        ["---", *["--:"] * len(columns)],
    ]
    for i, k in enumerate(exponents):
        rows.append([f"1e-{k}", *(f"{found[order][name][i]:.1e}" for order, name in columns)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def report() -> str:
    every = errors([10.0**-k for k in range(8, 101)])
    worst = {
        f"{name}, order {order}": max(every[order][name]) / EPS
        for order in every
        for name in ("complex", "multicomplex")
    }
    lines = [f"- {name}: {value:.1f} machine epsilons" for name, value in worst.items()]
    return "\n".join(
        [
            "# The error of numerical derivatives against the step",
            "",
            "Written by `python benchmarks/complex_step_error.py`, in float64. It reproduces "
            "figure 1 of Shen et al., *Second-order neural network training using complex-step "
            "directional derivative* (2020), for f(x) = e^x / sqrt(sin^3 x + cos^3 x) at x = 1.5.",
            "",
            "![relative errors against h](complex_step_error.png)",
            "",
            "Forward and central differences subtract: their error falls with h until rounding "
            "takes over, and from some h on nothing is left. The complex step and multicomplex "
            "numbers subtract nothing: their error falls as h^2 does, and then stays. For second "
            "derivatives, *complex* is a step over the gradient written by hand, and "
            "*multicomplex* one bicomplex evaluation of f alone.",
            "",
            "The largest error over h = 1e-8, 1e-9, ..., 1e-100:",
            "",
            *lines,
            "",
            "Relative errors:",
            "",
            table(),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/reports"))
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    figure(folder / "complex_step_error.png")
    (folder / "complex_step_error.md").write_text(report(), encoding="utf-8")
    print(table())


if __name__ == "__main__":
    main()

"""Performance profiles of Dolan and More (Mathematical Programming 91, 2002), table and figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

RATIOS = (1, 2, 4, 8, 16, 64)
#: Solvers that a figure names, those with the most area below their profiles: more are unreadable.
NAMED = 10
_COLOURS = [*(f"C{i}" for i in range(7)), "black", "C8", "C9"]  # C7 is grey


def profile(work: Mapping[str, Sequence[float]], ratios: Sequence[float]) -> dict[str, np.ndarray]:
    """Return, for each solver, the share of instances solved within each multiple of the best.

    Parameters
    ----------
    work : mapping of str to sequence of float
        Work by solver and instance, infinite where it failed.
    ratios : sequence of float
        Multiples tau of the least work that any of these solvers needed on the instance. No
        instance that everybody failed counts as solved.
    """
    table = np.array(list(work.values()), dtype=float)
    least = table.min(axis=0)
    ratio = np.where(np.isfinite(table), table / np.where(np.isfinite(least), least, 1.0), np.inf)
    shares = [(ratio <= tau).mean(axis=1) for tau in ratios]
    return {name: np.array([share[i] for share in shares]) for i, name in enumerate(work)}


def table(work: Mapping[str, Sequence[float]]) -> str:
    """Return the profile as a Markdown table, in per cent, with what is solved at all last."""
    shares = profile(work, [*RATIOS, np.finfo(float).max])
    head = [f"within {tau} x" for tau in RATIOS] + ["at all"]
    lines = [f"| solver | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for name, row in sorted(shares.items(), key=lambda item: -float(item[1].sum())):
        lines.append(f"| {name} | {' | '.join(f'{100 * share:.0f}' for share in row)} |")
    return "\n".join(lines)


def plot(panels: Mapping[str, Mapping[str, Sequence[float]]], path: str) -> None:
    """Draw one profile a panel and write it to ``path``; those below the :data:`NAMED` are grey."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ratios = 2.0 ** np.linspace(0, 8, 400)
    profiles = {title: profile(work, ratios) for title, work in panels.items()}
    area = {
        name: sum(p[name].sum() for p in profiles.values())
        for name in next(iter(profiles.values()))
    }
    best = sorted(area, key=lambda name: -area[name])
    named = best[:NAMED]

    figure, axes = plt.subplots(
        1, len(panels), figsize=(6.5 * len(panels), 5.5), sharey=True, squeeze=False
    )
    for axis, (title, shares) in zip(axes[0], profiles.items(), strict=True):
        for name in best[NAMED:]:
            axis.step(ratios, shares[name], where="post", color="0.85", linewidth=0.8)
        for name, colour in zip(named, _COLOURS, strict=False):
            ours = name.startswith("osculant")
            style, width = ("-", 2.2) if ours else ("--", 1.4)
            axis.step(
                ratios,
                shares[name],
                where="post",
                label=name,
                color=colour,
                linestyle=style,
                linewidth=width,
            )
        axis.set_xscale("log", base=2)
        axis.set_xlabel("work, in multiples of the least of any solver")
        axis.set_title(title)
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("share of instances")
    axes[0, 0].set_ylim(0, 1.02)
    others = f"in grey: {len(best) - len(named)} more" if len(best) > len(named) else None
    axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), title=others)
    figure.tight_layout()
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)

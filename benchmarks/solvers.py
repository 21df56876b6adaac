"""Deterministic solvers compared: robustness and counted work on smooth test functions.

    python benchmarks/solvers.py --problems mgh --output results
    python benchmarks/solvers.py --solvers "osculant,scipy trust" --functions watson,penalty

The instances are the 18 unconstrained test functions of More, Garbow and Hillstrom in 25 sizes,
each from x0, 10 x0 and 100 x0 (``--problems mgh``), or other smooth functions of up to 1000
variables from standard and perturbed starts (``--problems extra``, and ``--problems held-out``,
which the defaults were not chosen on). Everyone gets the same derivatives and is counted from
outside (``counting.py``). The best point seen counts, with the work spent until it was there: B is
stationarity, C the lowest known value.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import profiles
from counting import Instance, Ledger, LimitReached, Problem
from peers import Peer, peers

from osculant.problems import SmoothProblem, extra, held_out, mgh

#: Our names begin so; and what a user gets who chooses nothing.
OURS, DEFAULT = "osculant ", "osculant auto"


class Outcome(NamedTuple):
    """What one run came to."""

    stationary: float  # work when B first held; inf if it never did
    solved: float  # work when C first held; inf if it never did
    work: float  # all of it
    seconds: float
    false_claim: bool  # it says success, and B does not hold where it stopped
    crash: str  # the exception that ended it, if not the limits
    note: str


# Instances -----------------------------------------------------------------------------------


def mgh_instances() -> list[Instance]:
    return [
        Instance(f"{p.name} ({p.n}) x{factor}", p.fun, p.residual, x0, p.minima[0].value)
        for p in mgh.benchmark()
        for factor, x0 in p.starts().items()
    ]


def smooth_instances(problems: Callable[[], list[SmoothProblem]]) -> list[Instance]:
    return [
        Instance(f"{p.name} ({p.n}) {start}", p.fun, None, x0, p.lowest)
        for p in problems()
        for start, x0 in p.starts().items()
    ]


INSTANCES: dict[str, Callable[[], list[Instance]]] = {
    "mgh": mgh_instances,
    "extra": partial(smooth_instances, extra.problems),
    "held-out": partial(smooth_instances, held_out.problems),
}


# Runs ------------------------------------------------------------------------------------------


def run(peer: Peer, instance: Instance, *, gradients: float, seconds: float) -> Outcome:
    """Run one solver on one instance until it stops or its limits end it."""
    ledger = Ledger(instance.lowest, gradients=gradients, seconds=seconds)
    problem = Problem(instance, ledger)
    claim, crash = None, ""
    began = time.perf_counter()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            claim = peer.run(problem)
        except LimitReached:
            pass
        except Exception as error:
            # A framework may wrap what a callback raised: the ledger knows.
            first_line = next(iter(str(error).splitlines()), "")
            crash = "" if ledger.exhausted else f"{type(error).__name__}: {first_line}"
        elapsed = time.perf_counter() - began
        false_claim = claim is not None and not problem.settle(claim.x) and claim.success
    note = crash or ("limit" if claim is None else claim.message)
    return Outcome(ledger.stationary, ledger.solved, ledger.work, elapsed, false_claim, crash, note)


# Report ----------------------------------------------------------------------------------------


def summary(results: dict[str, list[Outcome]]) -> str:
    """Return the table of the measures, the most robust solver first."""
    lines = [
        "| solver | B % | C % | median work to B | false claims | crashes | seconds |",
        "|---|---|---|---|---|---|---|",
    ]

    def key(item: tuple[str, list[Outcome]]) -> tuple[float, float]:
        return (-_share(o.stationary for o in item[1]), _median(item[1]))

    for name, outcomes in sorted(results.items(), key=key):
        cells = [
            name,
            f"{100 * _share(o.stationary for o in outcomes):.0f}",
            f"{100 * _share(o.solved for o in outcomes):.0f}",
            f"{_median(outcomes):.0f}",
            str(sum(o.false_claim for o in outcomes)),
            str(sum(bool(o.crash) for o in outcomes)),
            f"{sum(o.seconds for o in outcomes):.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(work: Iterable[float]) -> float:
    return statistics.fmean(math.isfinite(w) for w in work)


def _median(outcomes: list[Outcome]) -> float:
    """Median work to B over all instances; one that failed counts as infinite."""
    return statistics.median(o.stationary for o in outcomes)


def failures(instances: list[Instance], results: dict[str, list[Outcome]]) -> str:
    """Return what each solver did not solve, and why it stopped there."""
    lines = []
    for name, outcomes in results.items():
        lines.append(f"\n**{name}**\n")
        for instance, o in zip(instances, outcomes, strict=True):
            marks = [
                mark
                for mark, holds in (
                    ("not B", math.isinf(o.stationary)),
                    ("not C", math.isinf(o.solved)),
                    ("false claim", o.false_claim),
                    ("crash", bool(o.crash)),
                )
                if holds
            ]
            if marks:
                lines.append(f"- {instance.name}: {', '.join(marks)}; {o.work:.0f}; {o.note}")
    return "\n".join(lines)


# Command line ------------------------------------------------------------------------------------


def chosen(names: Iterable[str], filters: str) -> list[str]:
    """Return the names that contain one of the comma-separated filters; all if there is none."""
    wanted = [part.strip().lower() for part in filters.split(",") if part.strip()]
    return [n for n in names if not wanted or any(part in n.lower() for part in wanted)]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--problems", choices=INSTANCES, default="mgh")
    parser.add_argument("--solvers", default="", help="parts of names, by commas; all by default")
    parser.add_argument("--functions", default="", help="parts of names, by commas")
    parser.add_argument("--gradients", type=float, default=2000, help="limit for each run")
    parser.add_argument("--seconds", type=float, default=60, help="limit for each run")
    parser.add_argument("--failures", action="store_true", help="list what was not solved")
    parser.add_argument("--output", type=Path, help="folder for the table and the figure")
    return parser.parse_args()


def main() -> None:
    args = options()
    instances = INSTANCES[args.problems]()
    names = chosen([instance.name for instance in instances], args.functions)
    instances = [instance for instance in instances if instance.name in names]
    table = peers()
    results: dict[str, list[Outcome]] = {}
    for name in chosen(table, args.solvers):
        peer = table[name]
        if not peer.installed:
            print(f"{name}: left out, {peer.package} is not installed")
        elif peer.residuals and any(instance.residual is None for instance in instances):
            print(f"{name}: left out, it needs residuals")
        else:
            print(f"{name} ...", flush=True)
            limits = {"gradients": args.gradients, "seconds": args.seconds}
            results[name] = [run(peer, instance, **limits) for instance in instances]
    if not results or not instances:
        raise SystemExit("nothing to run: no solver or no function has such a name")

    panels = {
        "B: stationary": {name: [o.stationary for o in out] for name, out in results.items()},
        "C: lowest known value": {name: [o.solved for o in out] for name, out in results.items()},
    }
    report = [f"{len(instances)} instances ({args.problems})", summary(results)]
    for title, work in panels.items():
        report += [f"Performance profile, {title} (% of instances)", profiles.table(work)]
        # Who else is in a profile changes it (Gould and Scott 2016).
        alone = {name: row for name, row in work.items() if name == DEFAULT or OURS not in name}
        if DEFAULT in alone and len(alone) < len(work):
            report += [f"The same, {DEFAULT} and solvers of others alone", profiles.table(alone)]
    if args.failures:
        report.append(failures(instances, results))
    print("\n" + "\n\n".join(report))
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        stem = args.output / f"solvers-{args.problems}"
        stem.with_suffix(".md").write_text("\n\n".join(report) + "\n")
        profiles.plot(panels, str(stem.with_suffix(".png")))


if __name__ == "__main__":
    main()

"""``python -m osculant.testing``: hold every backend to the laws, and write the support table."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from .conformance import Report, run
from .support import BACKENDS, ROWS, STRATEGIES, Support, contradictions, splice, table


def main(arguments: list[str] | None = None) -> int:
    """Run the laws on the installed backends; return the number of things that are wrong.

    Parameters
    ----------
    arguments : list of str, optional
        Of the command line: ``--write [FILE]`` puts the support table between the markers of the
        file, by default README.md, ``--check [FILE]`` counts a table that is not the current one
        as wrong, ``--backend NAME`` and ``--by STRATEGY`` (both repeatable) run no other,
        ``--laws`` prints every law, ``--full`` runs every strategy in every scenario instead of
        its sample.
    """
    parser = argparse.ArgumentParser(prog="python -m osculant.testing", description=__doc__)
    file: dict[str, Any] = {
        "type": Path,
        "metavar": "FILE",
        "nargs": "?",
        "const": Path("README.md"),
    }
    parser.add_argument("--write", help="put the support table between its markers", **file)
    parser.add_argument("--check", help="fail if the support table there is stale", **file)
    parser.add_argument("--backend", action="append", choices=[each.name for each in BACKENDS])
    parser.add_argument("--by", action="append", choices=[each.name for each in STRATEGIES])
    parser.add_argument("--laws", action="store_true", help="list how each law fared")
    parser.add_argument("--full", action="store_true", help="every strategy in every scenario")
    options = parser.parse_args(arguments)

    wrong = [
        message
        for support in ROWS
        if options.backend is None or support.name in options.backend
        if options.by is None or support.strategy.name in options.by
        for message in verify(support, laws=options.laws, full=options.full)
    ]
    print(f"\n{table()}\n")
    for path in filter(None, {options.write, options.check}):
        text = path.read_text(encoding="utf-8")
        current = splice(text, table())
        if path == options.write:
            path.write_text(current, encoding="utf-8")
        elif text != current:
            wrong.append(f"the table in {path} is stale: write it with --write {path}")
    print("\n".join(wrong), file=sys.stderr)
    return len(wrong)


def verify(support: Support, *, laws: bool = False, full: bool = False) -> list[str]:
    """Run a row's laws, print a line about them, and return all that is wrong."""
    if missing := support.missing():
        print(f"{support}: not tested here: {missing}")
        return []
    chosen = support.cases() if full else support.quick()
    with support.context():
        report = Report(tuple(run(case) for case in chosen))
    count = Counter(result.outcome for result in report.results)
    print(f"{support}: " + ", ".join(f"{n} {outcome}" for outcome, n in count.items()))
    if laws:
        print(report)
    wrong = [f"{support}: {result}" for result in report.failures]
    return wrong + contradictions(support, report.results)


if __name__ == "__main__":
    sys.exit(min(main(), 1))

"""Where the numbers of a report come from: data, seeds, versions, commit, settings."""

from collections.abc import Mapping, Sequence

import yaml

from pipa.evaluation.record import RunRecord
from pipa.evaluation.runs import NOT_OF_A_ROW, flat


def facts(runs: Sequence[RunRecord], images: str) -> list[tuple[str, str]]:
    """Name data, seeds, time, commit and versions.

    Args:
        runs: All runs.
        images: The images that gave the scores; "" if there are none.
    """
    record = runs[-1]
    seeds = sorted({one.seed for one in runs})
    found = [("Runs", ", ".join(str(one.folder) for one in runs))]
    domains = ("source", "target", "validation")
    found += [(n.capitalize(), str(record.data[n])) for n in domains if record.data.get(n)]
    if images:
        found.append(("Scored on", images))
    found.append(
        ("Seeds", ", ".join(map(str, seeds)) if len(seeds) > 1 else f"{seeds[0]}: one seed")
    )
    spent = [one.stored["seconds"] for one in runs if one.stored.get("seconds")]
    if spent:
        found.append(("Time", ", ".join(f"{seconds:.0f} s" for seconds in spent)))
    environments = {str(e): e for one in runs if (e := one.stored.get("environment"))}
    for environment in environments.values():
        commit = environment.get("git") or "unknown"
        versions = (f"{k} {v}" for k, v in environment.items() if k not in ("git", "machine"))
        found += [("Commit", commit), ("Versions", ", ".join(versions))]
    return found


def differing(records: Mapping[str, Sequence[RunRecord]]) -> list[list[str]]:
    """A table of the settings in which methods differ; empty if there is one."""
    options = {name: flat(dict(found[0].options)) for name, found in records.items()}
    known = sorted({key for found in options.values() for key in found})
    lines = []
    for key in known:
        values = [str(found.get(key, "-")) for found in options.values()]
        if key not in NOT_OF_A_ROW and len(set(values)) > 1:
            lines.append([key, *values])
    return [["setting", *options], *lines] if lines else []


def as_yaml(record: RunRecord) -> str:
    """All settings of a run."""
    text = yaml.safe_dump(dict(record.options), sort_keys=False, allow_unicode=True)
    return text if record.options else "The run has no config.yaml."

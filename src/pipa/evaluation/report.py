"""A report on runs as one HTML file: scores, curves, classes, pictures, features, settings.

Everything is inside the file, so it can be mailed and opened anywhere. It follows the reader's
light or dark setting and fits a phone. `course`, `sections` and `origin` make its parts,
`page` lays them out.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipa.errors import PipaError
from pipa.evaluation import sections
from pipa.evaluation.compare import Comparison, compare, mean
from pipa.evaluation.course import curve_figures
from pipa.evaluation.examine import Examination, examine
from pipa.evaluation.origin import as_yaml, differing, facts
from pipa.evaluation.page import render
from pipa.evaluation.plots import PALETTE
from pipa.evaluation.record import RunRecord, read_record
from pipa.evaluation.runs import Row, find_groups, reading_data_of, row_of
from pipa.evaluation.scores import figure
from pipa.evaluation.tables import cells, notes, said
from pipa.files.writing import write_text
from pipa.models.device import pick_device
from pipa.models.saved import SOURCE_ONLY_FOLDER, holds_network
from pipa.models.segmenter import Segmenter

BEFORE, AFTER = "source-only student", "adapted student"
MANY = 4
"""Methods up to which each has a card."""
PICTURES = 12


@dataclass
class Contents:
    """What a report tells of."""

    records: dict[str, list[RunRecord]]
    """The runs of each method; those of one method differ in their seed."""
    comparison: Comparison | None
    """Of the methods with scores; None if there are none."""
    names: list[str]
    """All methods in their order, which decides their colours."""

    @property
    def runs(self) -> list[RunRecord]:
        """All runs."""
        return [record for records in self.records.values() for record in records]

    @property
    def rows(self) -> list[Row]:
        """The methods with scores."""
        return [] if self.comparison is None else self.comparison.rows


def write_report(
    runs: Sequence[Path] | Mapping[str, Sequence[Path]],
    path: Path,
    *,
    title: str = "",
    about: Sequence[str] = (),
    against: Sequence[str] = (),
    pictures: int = PICTURES,
) -> None:
    """Write the report on runs, whole or not at all; an older one of the same name is replaced.

    A run may lack labels, a judgement, its end, or its images: then the report lacks the parts that
    need them, and says so.

    Args:
        runs: Folders of runs, or of runs at any depth; those that differ in their seed alone are
            one method. Or the runs of each method by its name.
        path: The HTML file; its folder is made.
        title: Heading of the page; "": the one in the folder's `report.json`, which `pipa adapt`,
            `ablate` and `demo` leave there, else the name of the run.
        about: Paragraphs below it; those of `report.json` when empty.
        against: Names of the methods that all are compared with; those of `report.json` when empty,
            else the first one. A single method is compared with its own source-only student.
        pictures: Maximum number of images on which the networks are looked at; 0: none.

    Raises:
        PipaError: There is no run, two were scored on other images or on other classes, a file of
            a run is damaged, or the report cannot be written.
    """
    groups = runs if isinstance(runs, Mapping) else find_groups(runs, unfinished=True)
    texts = {} if isinstance(runs, Mapping) or len(runs) != 1 else read_texts(runs[0])
    title, about = title or texts.get("title", ""), about or texts.get("about", ())
    against = against or [name for name in texts.get("against", ()) if name in groups]
    contents = read_contents(groups, against)
    seen, missing = look(contents, pictures)
    heading = title or (" and ".join(groups) if len(groups) < 3 else f"{len(groups)} methods")
    text = render(
        title=heading,
        lead=lead(contents),
        about=about,
        verdicts=verdicts(contents),
        cards=cards(contents),
        methods=methods(contents),
        curves=curve_figures(contents.records, contents.names),
        classes=sections.class_table(contents.comparison, contents.names, seen),
        confusion=sections.confusion_figures(contents.records),
        gallery=sections.gallery(seen),
        confidence=sections.confidence(seen, contents.names),
        features=sections.features(seen),
        judgement=sections.judgement(contents.records),
        missing=[*missing, *lacking(contents)],
        facts=facts(contents.runs, contents.rows[0].scored_on if contents.rows else ""),
        differing=differing(contents.records),
        settings=[(name, as_yaml(found[0])) for name, found in contents.records.items()],
    )
    write_text(path, text)


def read_texts(folder: Path) -> dict[str, Any]:
    """Read what the first report on a folder said beside the figures; empty if nothing is known."""
    try:
        found = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_contents(groups: Mapping[str, Sequence[Path]], against: Sequence[str]) -> Contents:
    """Read the runs and compare those that have scores.

    Raises:
        PipaError: There is no run, or runs cannot be compared.
    """
    records = {name: [read_record(run) for run in runs] for name, runs in groups.items()}
    if not any(records.values()):
        raise PipaError("nothing to report", remedy="Give folders of runs.")
    rows = []
    for name, found in records.items():
        scored = [record.folder for record in found if record.result is not None]
        if scored:
            rows.append(row_of(name, scored))
    names = list(records)
    adapted = [record for found in records.values() for record in found if has_before(record)]
    if len(records) == 1 and adapted:
        records, against = {AFTER: records[names[0]]}, ()
        names = [BEFORE, AFTER]
        for row in rows:
            row.name = AFTER
        before = {r.seed: r.source_only for r in adapted if r.source_only is not None}
        if before and rows:
            rows.insert(0, Row(BEFORE, before, scored_on=rows[0].scored_on))
    return Contents(records, compare(rows, against) if rows else None, names)


def has_before(record: RunRecord) -> bool:
    """Whether a run kept its source-only model, or will have done so in the end."""
    if not record.finished:
        method = record.options.get("method")
        adapts = isinstance(method, dict) and method.get("name") != "source_only"
        return bool(record.options.get("judge")) and adapts and record.start > 0
    return record.source_only is not None or holds_network(record.folder / SOURCE_ONLY_FOLDER)


def look(contents: Contents, count: int) -> tuple[Examination | None, list[str]]:
    """Look at networks on images, as far as networks and images are there.

    Returns:
        What was seen, None if nothing could be; and a sentence why.
    """
    if count < 1:
        return None, []
    networks, record = chosen_networks(contents)
    if not networks:
        return None, ["There are no pictures: no network was saved yet."]
    if not record.data.get("source"):
        return None, ["There are no pictures: the run's config.yaml does not name its data."]
    try:
        device = pick_device()
        with reading_data_of(record.folder):
            seen = examine({k: one.to(device) for k, one in networks.items()}, record.data, count)
        return seen, []
    except PipaError as error:
        return None, [f"There are no pictures: {error}"]


def chosen_networks(contents: Contents) -> tuple[dict[str, Segmenter], RunRecord]:
    """Load the networks to look at, and return the run on whose data to look at them.

    They are those of one run before and after adaptation; of several methods, those of the first
    and the last one after it, with the same seed if there is one.
    """
    groups = list(contents.records.values())
    record = groups[-1][0]
    if len(groups) == 1:
        places = {contents.names[0]: (record, "before"), contents.names[-1]: (record, "after")}
    else:
        first = next((one for one in groups[0] if one.seed == record.seed), groups[0][0])
        places = {contents.names[0]: (first, "after"), contents.names[-1]: (record, "after")}
    found = {name: one.models().get(state) for name, (one, state) in places.items()}
    return {name: one for name, one in found.items() if one is not None}, record


def lead(contents: Contents) -> list[str]:
    """Say in a few sentences what came out."""
    lines = []
    if contents.comparison is not None:
        rows = contents.rows
        last, reference = rows[-1], contents.comparison.against[0]
        line = f"{last.name}: {figure(mean(list(last.miou.values())))} mIoU on {last.scored_on}"
        if last.name != reference:
            change = said(contents.comparison.difference(last, reference))
            line += f", {change} against {reference}"
        lines.append(f"{line}.")
    for record in contents.runs:
        if not record.finished:
            trainer = record.options.get("trainer") or {}
            of = f" of {trainer['max_steps']}" if trainer.get("max_steps") else ""
            lines.append(
                f"{record.folder.name} has not ended: it has logged step {record.steps}{of}."
            )
    return lines


def verdicts(contents: Contents) -> list[str]:
    """The judgement of a single run in plain words."""
    if len(contents.runs) > 1 or not contents.runs[0].judgement:
        return []
    return [str(contents.runs[0].judgement.get("words", ""))]


def cards(contents: Contents) -> list[dict[str, Any]]:
    """The score of each method in large type; empty if there are many methods, or one."""
    if contents.comparison is None or not 1 < len(contents.rows) <= MANY:
        return []
    reference = contents.comparison.against[0]
    found = []
    for row in contents.rows:
        change = said(contents.comparison.difference(row, reference))
        right = mean([result.accuracy for result in row.results.values()])
        found.append(
            {
                "name": row.name,
                "tone": contents.names.index(row.name) % len(PALETTE["light"]),
                "miou": figure(mean(list(row.miou.values()))),
                "against": "the reference"
                if row.name == reference
                else f"{change} against {reference}",
                "note": "" if right != right else f"{right:.1f} % of the pixels right",
            }
        )
    return found


def methods(contents: Contents) -> dict[str, Any] | None:
    """The table of all methods, and what its differences can tell."""
    if contents.comparison is None:
        return None
    said_below = notes(contents.comparison)
    if contents.rows[0].name == BEFORE:
        record = contents.runs[0]
        said_below.insert(
            1,
            f"The source-only student is the run's own at step {record.start}, before it saw the "
            "target (but for its colours, with a style); the adapted one has trained for longer as "
            "well.",
        )
    return {"cells": cells(contents.comparison), "notes": said_below}


def lacking(contents: Contents) -> list[str]:
    """Say what the runs have not been asked for."""
    lines = []
    if contents.comparison is None and all(record.finished for record in contents.runs):
        lines.append("There are no scores: the run had no labelled images (--data.validation).")
    if not any(record.judgement for record in contents.runs):
        lines.append("Nothing was judged without labels: pipa train --judge 16 does.")
    return lines

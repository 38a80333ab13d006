"""The model card of a network: its classes, data, scores with seeds, and the encoder's licence."""

import html
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipa.errors import PipaError
from pipa.models.build import imagenet_weights
from pipa.models.segmenter import Segmenter

LICENCES = {
    "nvidia/mit-": (
        "NVIDIA Source Code License for SegFormer: research and evaluation only",
        "https://github.com/NVlabs/SegFormer/blob/master/LICENSE",
    ),
    "microsoft/resnet-": ("Apache-2.0", "https://huggingface.co/microsoft/resnet-50"),
    "facebook/dinov2-": ("Apache-2.0", "https://github.com/facebookresearch/dinov2"),
    "facebook/dinov3-": ("DINOv3 License", "https://ai.meta.com/resources/models-and-libraries/"),
}
"""Licence of pretrained weights by the start of their name on the Hub, and where it stands."""


def write_card(model: Segmenter, runs: Sequence[Path], name: str) -> str:
    """Return the text of README.md.

    Args:
        model: The network.
        runs: Folders of runs of one recipe with different seeds; the first is the network's. Of
            paths in them only the last part is told.
        name: Name of the network, `user/model` on the Hub.

    Raises:
        PipaError: A run has not ended, or its files are damaged.
    """
    found = [_facts(run) for run in runs]
    settings = found[0][0] if found else {}
    sections = [
        _head(settings),
        f"# {_text(name)}",
        _about(model, settings),
        _usage(name),
        _classes(model),
        _data(settings),
        _scores([scores for _, scores in found]),
        _licence(settings),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _facts(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a run's settings, and the scores of the model that it kept."""
    try:
        settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        scores = json.loads((run / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        problem = "has no config.yaml and results.json that can be read"
        raise PipaError(problem, run, "Name the folder of a run that has ended.") from error
    if not isinstance(settings, dict) or not isinstance(scores, dict):
        raise PipaError("its config.yaml or results.json is not that of a run", run)
    judged = scores.get("judgement") or {}
    worse = judged.get("outcome") == "worse"  # all that older runs say
    if judged.get("kept", "source_only" if worse else "adapted") == "source_only":
        scores = {"seed": scores.get("seed"), **scores.get("source_only", {})}
    return settings, scores


def _head(settings: Mapping[str, Any]) -> str:
    """Return the block that the Hub reads."""
    weights = _weights(settings)
    licence, link = _licence_of(weights)
    head: dict[str, Any] = {
        "library_name": "pipa",
        "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", "domain-adaptation"],
    }
    if weights and _public(weights) == weights:
        head["base_model"] = weights
    if licence == "Apache-2.0":
        head["license"] = "apache-2.0"
    elif licence:
        head |= {"license": "other", "license_name": licence, "license_link": link}
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---"


def _about(model: Segmenter, settings: Mapping[str, Any]) -> str:
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    method = settings.get("method", {}).get("name")
    how = f", trained with the method `{_text(method)}`" if method else ""
    return (
        f"A network for semantic segmentation, `{_text(model.config.get('name', 'unknown'))}` "
        f"({count:.1f} M parameters, {model.num_classes} classes){how} of pipa: domain adaptation "
        "from labelled images of one domain to unlabelled images of another."
    )


def _usage(name: str) -> str:
    return f"""## Use

```python
import pipa

model = pipa.load_segmenter({name!r})
ids = model.predict(image)  # RGB, uint8 (h, w, 3) -> class ids (h, w)
```"""


def _classes(model: Segmenter) -> str:
    if model.labels is None:
        return f"## Classes\n\n{model.num_classes}, without names."
    rows = [
        f"| {i} | {_text(name)} | {red}, {green}, {blue} |"
        for i, (name, (red, green, blue)) in enumerate(
            zip(model.labels.names, model.labels.colours, strict=True)
        )
    ]
    return "\n".join(["## Classes", "", "| id | class | colour |", "|---|---|---|", *rows])


def _data(settings: Mapping[str, Any]) -> str:
    data = settings.get("data", {})
    roles = {
        "source": "labelled",
        "target": "no label was used",
        "validation": "labelled, for the scores and for what to keep",
    }
    rows = [
        f"- {role}: {_text(_last_part(data[role]))} ({how})"
        for role, how in roles.items()
        if data.get(role)
    ]
    return "\n".join(["## Data", "", *(rows or ["Not known."])])


def _last_part(spec: str) -> str:
    """Keep the format and the folder's own name: where it lies is nobody's business."""
    head, colon, path = spec.rpartition(":")
    return f"{head}{colon}{Path(path).name or path}"


def _scores(runs: Sequence[Mapping[str, Any]]) -> str:
    known = [run for run in runs if run.get("miou") is not None]
    if not known:
        return "## Scores\n\nNot measured."
    heads = [f"seed {run.get('seed', '?')}" for run in known]
    lines = ["## Scores", "", "IoU in percent on the validation images.", ""]
    lines += [f"| class | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in known[0].get("iou", {}):
        lines.append(_row(_text(name), [run.get("iou", {}).get(name) for run in known]))
    means = [run["miou"] for run in known]
    lines += [_row("**mIoU**", means), ""]
    if len(means) > 1:
        spread = statistics.stdev(means)
        lines.append(f"mIoU over {len(means)} seeds: {statistics.mean(means):.1f} ± {spread:.1f}.")
    else:
        lines.append("One seed: another one may differ by points.")
    return "\n".join(lines)


def _row(name: str, values: Sequence[float | None]) -> str:
    cells = ("-" if value is None else f"{value:.1f}" for value in values)
    return f"| {name} | {' | '.join(cells)} |"


def _licence(settings: Mapping[str, Any]) -> str:
    weights = _weights(settings)
    if not settings:
        return "## Licence\n\nThe licence of the encoder's first weights is not known here."
    if not weights:
        return "## Licence\n\nThe encoder was trained from random weights: no others bind it."
    licence, link = _licence_of(weights)
    said = f"{licence} ({link})" if licence else "see where they come from"
    return (
        f"## Licence\n\nTraining began from the weights `{_text(_public(weights))}`, and this "
        f"network is bound to their licence: {said}."
    )


def _weights(settings: Mapping[str, Any]) -> str | None:
    """Return the name of the pretrained weights that a run began with."""
    given = settings.get("student", {})
    weights = given.get("pretrained")
    if weights == "auto":
        return imagenet_weights(str(given.get("name", "")))
    return None if weights in (None, "none") else str(weights)


def _public(weights: str) -> str:
    """Keep a name on the Hub; of a folder on this machine, keep the last part."""
    is_name = weights.count("/") == 1 and weights[0] not in "./~" and not Path(weights).exists()
    return weights if is_name else _last_part(weights)


def _licence_of(weights: str | None) -> tuple[str, str]:
    found = (known for start, known in LICENCES.items() if (weights or "").startswith(start))
    return next(found, ("", ""))


def _text(value: object) -> str:
    """Escape what Markdown and HTML would read as more than text."""
    return html.escape(" ".join(str(value).split()), quote=False).replace("|", "\\|")

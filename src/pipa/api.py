"""The front door in Python for finished models and runs: what the commands do, as functions.

`adapt` and `train` are in `pipa.run`; everything is imported from `pipa` itself.
"""

from collections.abc import Sequence
from pathlib import Path

from pipa.deploy.outputs import DEFAULT
from pipa.deploy.predict import predict as label_files
from pipa.evaluation.compare import Comparison
from pipa.evaluation.compare import compare as compare_rows
from pipa.evaluation.evaluate import evaluate as score
from pipa.evaluation.runs import find_rows
from pipa.evaluation.scores import Result
from pipa.evaluation.tables import write_tables
from pipa.models.device import pick_device
from pipa.models.saved import load_segmenter
from pipa.models.segmenter import Segmenter


def predict(
    model: Segmenter | str | Path,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path = "predictions",
    *,
    kinds: Sequence[str] = DEFAULT,
    scale: float | None = None,
    alpha: float = 0.5,
    batch: int | None = None,
) -> dict[Path, list[Path]]:
    """Label images, folders of images and videos; write the predictions as pictures.

    For class ids as an array, use `Segmenter.predict`.

    Args:
        model: A network, or what `load_segmenter` takes: a run's folder, say.
        inputs: Images, videos, folders of them, or glob patterns; one or several.
        out: Folder to write to, outside of the inputs; older files of the same names are replaced.
        kinds: What to write of each image: ids (a PNG of class ids), colour, overlay, confidence,
            probabilities, cityscapes.
        scale: Factor by which images are resized for the network; outputs keep the input's size.
            None: by the model's `resize`.
        alpha: Weight of the class's colour in an overlay, 0..1.
        batch: Consecutive images of one size, or frames, that go through the network together;
            None: 1 on a CPU, else up to 8, fewer of large ones.

    Returns:
        The files that were written for each input.

    Raises:
        PipaError: An input is missing or unreadable, or an output cannot be written.

    Examples:
        >>> written = pipa.predict("runs/mine", "photo.jpg", "predictions", kinds=["overlay"])
        >>> [str(file) for file in written[Path("photo.jpg")]]
        ['predictions/overlay/photo.png']
    """
    several = [inputs] if isinstance(inputs, str | Path) else inputs
    network = network_of(model)
    where = Path(out)
    return dict(
        label_files(network, several, where, kinds=kinds, scale=scale, alpha=alpha, batch=batch)
    )


def evaluate(
    model: Segmenter | str | Path,
    data: str | Path,
    *,
    classes: str | None = None,
    scale: float | None = None,
    resize: tuple[int, int] | None = None,
    quiet: bool = True,
) -> Result:
    """Score a model on labelled images: IoU of each class and their mean, in percent.

    Args:
        model: A network, or what `load_segmenter` takes: a run's folder, say.
        data: Labelled images, `[FORMAT[/SPLIT]:]PATH`.
        classes: The classes of the labels: a classes.yaml, or names with commas; None: the data's
            own. They are matched with the model's by name, and what has no match is not scored.
        scale: Factor by which images are resized for the network; its logits are brought back to
            the size of the label. None: by the model's `resize`.
        resize: Height and width into which images and labels are scaled first; None: as they are.
        quiet: Show no progress bar.

    Raises:
        PipaError: No class of the data is one of the model's, or a file is faulty.

    Examples:
        >>> result = pipa.evaluate("runs/mine", "labelled")
        >>> 0 <= result.miou <= 100
        True
        >>> sorted(result.iou)
        ['forest', 'ground', 'water']
    """
    network = network_of(model)
    return score(network, str(data), classes=classes, scale=scale, resize=resize, quiet=quiet)


def compare(
    runs: str | Path | Sequence[str | Path],
    *,
    against: Sequence[str] = (),
    out: str | Path | None = None,
) -> Comparison:
    """Set finished runs side by side: mean and spread over seeds, differences seed by seed.

    Runs that differ in their seed alone are one row.

    Args:
        runs: Folders of runs that had validation data, or folders of such folders.
        against: Names of the rows that all are compared with; none: the first row.
        out: Folder for `table.md`, `table.json` and `table.svg`; None: they are not written.

    Raises:
        PipaError: A folder holds no finished run with scores, or two rows were scored on other
            images or other classes.

    Examples:
        >>> comparison = pipa.compare(["runs/mine"])
        >>> [(row.name, len(row.miou)) for row in comparison.rows]  # name, number of seeds
        [('mine', 1)]
    """
    several = [runs] if isinstance(runs, str | Path) else runs
    comparison = compare_rows(find_rows([Path(run) for run in several]), against)
    if out is not None:
        write_tables(comparison, Path(out))
    return comparison


def network_of(model: Segmenter | str | Path) -> Segmenter:
    """Return the network; one that is loaded goes to the GPU if there is one."""
    if isinstance(model, Segmenter):
        return model
    return load_segmenter(model).to(pick_device())

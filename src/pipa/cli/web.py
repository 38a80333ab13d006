"""`pipa web`."""

import signal
import threading
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pipa.cli.common import add_model, load_model, new_parser
from pipa.errors import PipaError

if TYPE_CHECKING:
    from pipa.deploy.side_by_side import Image

EXAMPLES = 6
"""How many images of the target are offered."""


def web_command(given: list[str]) -> int:
    """`pipa web MODEL [MODEL2]`."""
    parser = new_parser("web", "Label dropped images and videos in the browser; compare models.")
    add_model(parser)
    about = "a second model; default: a run's source-only model beside its adapted one"
    parser.add_argument("second", nargs="?", type=Path | None, metavar="MODEL2", help=about)
    about = "resize images by this for the network; default: to the size of the model's training"
    parser.add_argument("--scale", type=float | None, help=about)
    about = "address to listen at; 0.0.0.0 lets everybody in your network use the page"
    parser.add_argument("--host", type=str, default="127.0.0.1", help=about)
    about = "default: the first free one from 7860 on"
    parser.add_argument("--port", type=int | None, help=about)
    options = parser.parse_args(given)
    if find_spec("gradio") is None:
        raise PipaError("needs Gradio", "pipa web", 'Install it: pip install "pipa-uda[web]".')

    from pipa.deploy.side_by_side import SideBySide
    from pipa.deploy.web import serving

    paths = networks(options.model, options.second)
    shown = examples(options.model)
    models = {}
    for name, options.model in paths.items():
        models[name] = load_model(options)
    side_by_side = SideBySide(models, scale=options.scale)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    listen = serving(side_by_side, shown, host=options.host, port=options.port)
    with suppress(KeyboardInterrupt), listen as address:
        print(f"{' and '.join(models)}: {address} (Ctrl-C ends it)", flush=True)
        threading.Event().wait()
    return 0


def networks(model: Path, second: Path | None) -> dict[str, Path]:
    """The path of each network by its name; of a run alone, its source-only one is the first."""
    from pipa.models.saved import SOURCE_ONLY_FOLDER, adapted_folder, holds_network

    if second is not None:
        names = ["/".join(path.absolute().parts[-2:]) for path in (model, second)]
        if names[0] == names[1]:
            names = [f"{names[0]} (1)", f"{names[1]} (2)"]
        return dict(zip(names, (model, second), strict=True))
    if not holds_network(model / SOURCE_ONLY_FOLDER):
        return {model.absolute().name: model}
    return {"source-only": model / SOURCE_ONLY_FOLDER, "adapted": adapted_folder(model)}


def examples(model: Path) -> "list[Image]":
    """A few images of a run's target, else of Streets."""
    from pipa.data.unlabelled import each_image
    from pipa.evaluation.runs import run_data
    from pipa.streets import street

    known = run_data(model)
    if target := known.get("target"):
        kind = known.get("format", "folder")
        with suppress(PipaError):  # the images may be on another machine
            if images := list(each_image(target, EXAMPLES, format=kind, skipped=[])):
                return images
    return [street(seed, "camera", height=256, width=512)[0] for seed in range(2)]

"""PiPa: unsupervised domain adaptation for semantic segmentation.

    import pipa
    run = pipa.adapt("synthetic", "photos")  # labelled images; images to adapt to
    print(run.verdict)
    ids = run.model.predict("photo.jpg")

`__all__` is the table of contents. Names are imported on first use, so that `pipa --help` and a
server that only predicts stay light.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipa import losses as losses
    from pipa.api import compare as compare
    from pipa.api import evaluate as evaluate
    from pipa.api import predict as predict
    from pipa.batch import Batch as Batch
    from pipa.batch import CropPair as CropPair
    from pipa.batch import Labelled as Labelled
    from pipa.batch import Unlabelled as Unlabelled
    from pipa.classes import CITYSCAPES as CITYSCAPES
    from pipa.classes import LabelSpace as LabelSpace
    from pipa.data.module import UDAData as UDAData
    from pipa.deploy.predictor import Predictor as Predictor
    from pipa.deploy.publish import from_pretrained as from_pretrained
    from pipa.deploy.publish import push_to_hub as push_to_hub
    from pipa.deploy.publish import save_pretrained as save_pretrained
    from pipa.errors import PipaError as PipaError
    from pipa.models.build import create_segmenter as create_segmenter
    from pipa.models.saved import load_segmenter as load_segmenter
    from pipa.models.saved import save_segmenter as save_segmenter
    from pipa.models.segmenter import Segmenter as Segmenter
    from pipa.models.wrapped import Wrapped as Wrapped
    from pipa.run.adapt import adapt as adapt
    from pipa.run.ending import Run as Run
    from pipa.run.options import StudentOptions as StudentOptions
    from pipa.run.recipes import MethodOptions as MethodOptions
    from pipa.run.train import train as train
    from pipa.uda.adversarial import Adversarial as Adversarial
    from pipa.uda.method import Method as Method
    from pipa.uda.optim import Optim as Optim
    from pipa.uda.self_training import SelfTraining as SelfTraining
    from pipa.uda.source_only import SourceOnly as SourceOnly
    from pipa.uda.terms import EntropyTerm as EntropyTerm
    from pipa.uda.terms import FeatureDistance as FeatureDistance
    from pipa.uda.terms import Given as Given
    from pipa.uda.terms import MaskedConsistency as MaskedConsistency
    from pipa.uda.terms import PairCrossEntropy as PairCrossEntropy
    from pipa.uda.terms import PatchTerm as PatchTerm
    from pipa.uda.terms import PixelTerm as PixelTerm
    from pipa.uda.terms import SourceTerm as SourceTerm
    from pipa.uda.terms import TargetTerm as TargetTerm

__version__ = "0.1.0"

_HOME = {
    "adapt": "pipa.run.adapt",
    "train": "pipa.run.train",
    "Run": "pipa.run.ending",
    "StudentOptions": "pipa.run.options",
    "MethodOptions": "pipa.run.recipes",
    "Optim": "pipa.uda.optim",
    "predict": "pipa.api",
    "evaluate": "pipa.api",
    "compare": "pipa.api",
    "create_segmenter": "pipa.models.build",
    "load_segmenter": "pipa.models.saved",
    "save_segmenter": "pipa.models.saved",
    "Predictor": "pipa.deploy.predictor",
    "from_pretrained": "pipa.deploy.publish",
    "push_to_hub": "pipa.deploy.publish",
    "save_pretrained": "pipa.deploy.publish",
    "Segmenter": "pipa.models.segmenter",
    "Wrapped": "pipa.models.wrapped",
    "UDAData": "pipa.data.module",
    "Batch": "pipa.batch",
    "Labelled": "pipa.batch",
    "Unlabelled": "pipa.batch",
    "CropPair": "pipa.batch",
    "LabelSpace": "pipa.classes",
    "CITYSCAPES": "pipa.classes",
    "Method": "pipa.uda.method",
    "SelfTraining": "pipa.uda.self_training",
    "Adversarial": "pipa.uda.adversarial",
    "SourceOnly": "pipa.uda.source_only",
    "PixelTerm": "pipa.uda.terms",
    "PatchTerm": "pipa.uda.terms",
    "PairCrossEntropy": "pipa.uda.terms",
    "FeatureDistance": "pipa.uda.terms",
    "MaskedConsistency": "pipa.uda.terms",
    "EntropyTerm": "pipa.uda.terms",
    "SourceTerm": "pipa.uda.terms",
    "TargetTerm": "pipa.uda.terms",
    "Given": "pipa.uda.terms",
    "PipaError": "pipa.errors",
}

__all__ = [*_HOME, "losses"]


def __getattr__(name: str) -> Any:
    if name == "losses":
        return importlib.import_module("pipa.losses")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'pipa' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

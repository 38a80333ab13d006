"""Networks for others: a folder with a model card, and the same on the Hugging Face Hub."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipa.deploy.card import write_card
from pipa.errors import PipaError
from pipa.models.hub import upload
from pipa.models.saved import load_segmenter, save_segmenter
from pipa.models.segmenter import Segmenter

from_pretrained = load_segmenter


def save_pretrained(
    model: Segmenter, folder: Path | str, *, runs: Sequence[Path] = (), name: str = ""
) -> None:
    """Write a network and its model card, README.md.

    Args:
        model: The network.
        folder: The folder to write; a saved network in it is replaced.
        runs: Runs of one recipe with different seeds, for the card's data and scores; the first is
            the network's.
        name: `user/model`; empty: the folder's name.

    Raises:
        PipaError: The folder has other contents or cannot be written, or a run has not ended.
    """
    folder = Path(folder)
    save_segmenter(model, folder, card=write_card(model, runs, name or folder.name))


def push_to_hub(
    model: Segmenter,
    name: str,
    *,
    runs: Sequence[Path] = (),
    private: bool = False,
    token: str | None = None,
    message: str = "Upload with pipa",
) -> str:
    """Put a network with its model card on the Hugging Face Hub.

    Args:
        model: The network.
        name: `user/model`; the repository is made if there is none.
        runs: Runs of one recipe with different seeds, for the card's data and scores; the first is
            the network's.
        private: Whether a new repository is private.
        token: A token that may write; None: that of `hf auth login`, or `HF_TOKEN`.
        message: The message of the commit.

    Returns:
        The address of its page.

    Raises:
        PipaError: The Hub refuses or cannot be reached, or a run has not ended.
    """
    if not model.config:
        raise PipaError("the network was not built by create_segmenter, so nobody could load it")
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "model"
        save_pretrained(model, folder, runs=runs, name=name)
        return upload(folder, name, private=private, token=token, message=message)

"""The Hugging Face Hub: folders of saved networks under the name `user/model`."""

import re
from pathlib import Path

from pipa.errors import PipaError, first_line

FILES = ("config.json", "model.safetensors")
"""The files of a saved network."""


def is_hub_name(path: Path) -> bool:
    """Whether it can only be a name on the Hub: `user/model`, and no place on this machine."""
    named = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", path.as_posix()) is not None
    return named and not path.exists() and not path.parent.exists()


def download(name: str) -> Path:
    """Fetch a network, unless it is in the Hub's cache already.

    Args:
        name: `user/model`.

    Returns:
        The folder with its files, in the cache: do not write to it.

    Raises:
        PipaError: There is no such network, it is private, or the Hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except (HTTPError, OSError, ValueError) as error:
        raise PipaError(
            f"no such file or folder, and not to be had from the Hub: {first_line(error)}",
            name,
            "Check the name, the network, and `hf auth login` if it is private.",
        ) from error


def upload(folder: Path, name: str, *, private: bool, token: str | None, message: str) -> str:
    """Put the files of a folder on the Hub; make the repository if there is none.

    Returns:
        The address of its page.

    Raises:
        PipaError: The Hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    api = HfApi(token=token)
    try:
        page = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
    except (HTTPError, OSError, ValueError) as error:
        remedy = "Check the name, the network, and `hf auth login`."
        raise PipaError(f"the Hub does not take it: {first_line(error)}", name, remedy) from error
    return str(page)

"""Loggers of services: Lightning's, or one line that says what to install."""

from importlib.util import find_spec

import pytest
from lightning.pytorch.loggers import Logger

from pipa.errors import PipaError
from pipa.run.engine import further_loggers


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_service_is_logged_to_or_the_missing_package_is_named(tmp_path, name, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if find_spec(name) is None:
        with pytest.raises(PipaError, match=f"needs the package {name}. `pip install {name}`"):
            further_loggers(tmp_path / "run", name)
    else:
        (logger,) = further_loggers(tmp_path / "run", name)
        assert isinstance(logger, Logger)


def test_without_a_service_there_is_no_further_logger(tmp_path):
    assert further_loggers(tmp_path, None) == []

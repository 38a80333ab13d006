"""Puts this folder on the path, so that tests can `import recipe`; one thread for each process.

Each test draws the same random numbers in each run, and so do the examples of hypothesis,
which may take as long as a busy machine needs.
"""

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)  # `make test` runs a process on each core
slow = [HealthCheck.too_slow]
settings.register_profile("gate", deadline=None, derandomize=True, suppress_health_check=slow)
settings.load_profile("gate")


@pytest.fixture(autouse=True)
def same_random_numbers():
    torch.manual_seed(0)

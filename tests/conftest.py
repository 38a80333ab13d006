"""Puts this folder on the path, so that tests can `import recipe`; one thread for each process."""

import torch

torch.set_num_threads(1)  # `make test` runs a process on each core

"""What the commands run: options, methods by name, trainings, ablations, the demo."""

# Before rich.progress: `typing` caches unions whatever their order, so Lightning's `int | float`
# would become `float | int`, and `--trainer.limit_val_batches 5` would be read as 5.0.
import lightning  # noqa: F401

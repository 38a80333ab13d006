"""What the commands run: options, methods by name, trainings, ablations, the demo."""

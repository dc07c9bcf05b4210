"""Self-supervised objectives, one file each; their interface is `objectives/objective.py`."""

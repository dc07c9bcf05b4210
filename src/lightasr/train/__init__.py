"""Training: the loop, its batches' augmentation, its schedule, its checkpoints."""

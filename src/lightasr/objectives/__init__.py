"""Training objectives: from a model's outputs and a batch's targets to a loss."""

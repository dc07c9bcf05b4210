"""Decoders: from log-probabilities of symbols to words."""

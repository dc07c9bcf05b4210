"""Mixers: how the frames of a transformer block exchange information."""

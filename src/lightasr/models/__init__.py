"""Acoustic models: frontend -> encoder -> head, each component one file found by its name."""

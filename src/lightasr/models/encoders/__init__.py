"""Encoders: what this project compares."""

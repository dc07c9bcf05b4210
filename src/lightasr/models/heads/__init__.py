"""Heads: encoder states to scores of symbols."""

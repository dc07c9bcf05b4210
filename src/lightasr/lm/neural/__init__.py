"""Recurrent language models: their text, their training, and what they say of sentences."""

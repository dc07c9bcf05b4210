"""Word n-gram language models."""

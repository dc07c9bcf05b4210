"""Front ends: features to encoder input, shortening time."""

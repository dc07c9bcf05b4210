"""Language models: n-grams, and recurrent ones in `neural`."""

"""Recurrent layers: how directions, true lengths, weights and scans become the units of `ds2`."""

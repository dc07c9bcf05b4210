"""Recurrences over time, one function per cell: `scan(gates, weight, h0) -> states`."""

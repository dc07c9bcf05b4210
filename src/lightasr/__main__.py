"""`python -m lightasr` is `lightasr`."""

from __future__ import annotations

from lightasr.cli import main

main()

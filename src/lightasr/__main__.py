"""`python -m lightasr` is `lightasr`."""

from lightasr.cli import main

main()

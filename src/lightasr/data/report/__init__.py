"""`lightasr data report`: what the parts of a plan hold, and what looks wrong."""

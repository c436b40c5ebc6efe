"""The evidence: other methods, grids of runs, and how to read what they gave."""

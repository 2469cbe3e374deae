"""Bound methods side by side on the same problems: measured here, written as rows of a CSV, drawn elsewhere."""

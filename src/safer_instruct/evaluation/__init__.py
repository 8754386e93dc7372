"""Measuring what was made: models side by side on data that none of them saw."""

"""Scores, plots and reports."""

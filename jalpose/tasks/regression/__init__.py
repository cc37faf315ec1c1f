"""Regression: one number a row of numbers."""

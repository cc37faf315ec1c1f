"""Scores of predicted joints, and passes over examples."""

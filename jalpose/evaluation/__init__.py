"""Scores of models on test and training sets, and measures of a choice."""

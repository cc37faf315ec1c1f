"""Acquisition methods, and what they may ask of the model."""

"""Passes of a trained network over examples, and what methods may ask of it."""

"""Acquisition methods that only poses have."""

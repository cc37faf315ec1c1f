"""Exact gradient norms against approximate ones, on one model and pool."""

"""Pose networks as Linen modules."""

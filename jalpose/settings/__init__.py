"""Every configuration key, what scales change, and which values are allowed."""

"""The active-learning loop: states, what advances them, and all effects."""

"""Training: one jitted step, the plan of a cycle, objectives of heads."""

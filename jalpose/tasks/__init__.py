"""Tasks: what labels are, how they are learnt, decoded, scored and drawn."""

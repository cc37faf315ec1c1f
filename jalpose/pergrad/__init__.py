"""Per-example gradient norms of any Linen model; knows nothing of poses."""

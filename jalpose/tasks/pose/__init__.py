"""Human pose: joints on heatmaps."""

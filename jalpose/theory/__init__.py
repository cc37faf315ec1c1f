"""The papers' theory recomputed: EGL for regression, LearningLoss++'s tables."""

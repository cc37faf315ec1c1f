"""Trained runs put to use: to choose once, to predict, to be taken elsewhere."""

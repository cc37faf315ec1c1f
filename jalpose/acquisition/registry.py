"""Acquisition methods by name: a new one is a file beside this and a line here."""

from jalpose.acquisition import control, eglpp, random

METHODS = {
    "eglpp": eglpp.METHOD,
    "random": random.METHOD,
    "control": control.METHOD,
}

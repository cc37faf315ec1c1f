"""Acquisition methods by name: a new one is a file beside this and a line here."""

from jalpose.acquisition import (
    control,
    coreset,
    egl,
    eglpp,
    ensemble,
    entropy_gradnorm,
    expected_gradnorm,
    learning_loss,
    mc_dropout,
    random,
    softmax_entropy,
)
from jalpose.acquisition.pose import aleatoric, egl_ensemble, multipeak_entropy, vl4pose

METHODS = {
    "random": random.METHOD,
    "coreset": coreset.METHOD,
    "multipeak_entropy": multipeak_entropy.METHOD,
    "softmax_entropy": softmax_entropy.METHOD,
    "learning_loss": learning_loss.METHOD,
    "eglpp": eglpp.METHOD,
    "expected_gradnorm": expected_gradnorm.METHOD,
    "entropy_gradnorm": entropy_gradnorm.METHOD,
    "egl": egl.METHOD,
    "egl_ensemble": egl_ensemble.METHOD,
    "ensemble": ensemble.METHOD,
    "mc_dropout": mc_dropout.METHOD,
    "aleatoric": aleatoric.METHOD,
    "vl4pose": vl4pose.METHOD,
    "control": control.METHOD,
}

"""The JAX half: a number, learnt by its squared error."""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Brightness:
    size: int
    name = "brightness"
    num_outputs = 1
    measures = ("prediction", "decoded")
    pixels = True

    @property
    def label_shapes(self):
        return {"brightness": jax.ShapeDtypeStruct((), jnp.float32)}

    def augment(self, key, image, label):
        flip = jax.random.bernoulli(key)
        return jnp.where(flip, image[:, ::-1], image), label

    def target(self, label):
        known = jnp.isfinite(label["brightness"])
        return jnp.where(known, label["brightness"], 0.0), known

    def known(self, target):
        return target[1]

    def loss(self, prediction, target):
        value, known = target
        return jnp.where(known, jnp.square(prediction[0] - value), 0.0)

    def decode(self, prediction):
        return {"brightness": prediction[0]}

    def disagreement(self, predictions, measure):
        return jnp.var(predictions, axis=0)

    def predicted_target(self, prediction, label):
        return prediction[0], self.target(label)[1]


def make_task(config, dataset):
    return Brightness(config.data.size)

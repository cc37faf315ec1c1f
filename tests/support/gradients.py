"""Networks of the kinds people train, and their gradients one example at a time."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tests.support.networks import random, square_loss, variables_of

B = 4


class ResNet(nn.Module):
    """Residual blocks, the second one strided with a projected shortcut."""

    width: int = 4

    @nn.compact
    def __call__(self, x):
        def norm(x, name):
            return nn.BatchNorm(use_running_average=True, name=name)(x)

        x = nn.relu(norm(nn.Conv(self.width, (3, 3), use_bias=False)(x), "stem"))
        for block, (features, stride) in enumerate(((self.width, 1), (8, 2))):
            name, steps = f"block{block}", (stride, stride)
            y = nn.Conv(features, (3, 3), steps, use_bias=False, name=f"{name}a")(x)
            y = nn.relu(norm(y, f"{name}an"))
            y = nn.Conv(features, (3, 3), use_bias=False, name=f"{name}b")(y)
            y = norm(y, f"{name}bn")
            if y.shape != x.shape:
                x = nn.Conv(features, (1, 1), steps, use_bias=False)(x)
            x = nn.relu(x + y)
        return nn.Dense(5)(x.mean(axis=(1, 2)))


class Transformer(nn.Module):
    """Tokens, learned places, a block of attention and a perceptron."""

    width: int = 8

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(11, self.width)(tokens)
        places = self.param("places", nn.initializers.normal(), (6, self.width))
        x = x + places[None]
        y = nn.LayerNorm()(x)
        mask = nn.make_causal_mask(tokens)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(y, y, mask=mask)
        y = nn.gelu(nn.Dense(2 * self.width)(nn.LayerNorm()(x)))
        x = x + nn.Dense(self.width)(y)
        return nn.Dense(11)(nn.LayerNorm()(x))


class Recurrent(nn.Module):
    """An LSTM over words, whose embedding gives the next word's scores too."""

    @nn.compact
    def __call__(self, tokens):
        words = nn.Embed(11, 5)
        states = nn.RNN(nn.LSTMCell(5))(words(tokens))
        return words.attend(nn.Dense(5)(states[:, -1]))


class Mixed(nn.Module):
    """Grouped and transposed convolutions, an embedding, an einsum."""

    @nn.compact
    def __call__(self, inputs):
        image, word = inputs
        x = nn.relu(nn.Conv(6, (3, 3), feature_group_count=3)(image))
        x = nn.GroupNorm(num_groups=2)(nn.ConvTranspose(4, (2, 2), (2, 2))(x))
        x = nn.DenseGeneral((2, 3), axis=(-2, -1))(jnp.tanh(x))
        x = nn.Einsum((2, 3, 4), "bhij,ijk->bhk")(x)
        return x.mean(axis=1) + nn.Embed(5, 4)(word)


def _tokens(seed, *shape):
    return np.random.default_rng(seed).integers(0, 11, shape)


# name -> (network, inputs of B examples)
NETWORKS = {
    "ResNet": (ResNet(), random(0, B, 8, 8, 3)),
    "transformer": (Transformer(), _tokens(1, B, 6)),
    "LSTM": (Recurrent(), _tokens(2, B, 7)),
    "mixed": (Mixed(), (random(3, B, 6, 6, 3), _tokens(4, B) % 5)),
}


def case(name, num=1):
    """(apply_fn, variables, inputs, targets [B, num, ...]) of a network."""
    net, inputs = NETWORKS[name]
    variables = variables_of(net, inputs)
    shape = jax.eval_shape(net.apply, variables, inputs).shape
    return net.apply, variables, inputs, random(9, B, num, *shape[1:])


def each_gradient(apply_fn, variables, inputs, targets, loss_fn=square_loss):
    """Gradients of every example and candidate: a tree of [b, k, ...]."""

    def one(params, x, target):
        def loss(params):
            batch = jax.tree.map(lambda leaf: leaf[None], x)
            output = apply_fn({**variables, "params": params}, batch)
            return loss_fn(jax.tree.map(lambda leaf: leaf[0], output), target)

        return jax.grad(loss)(params)

    each = jax.vmap(jax.vmap(one, (None, None, 0)), (None, 0, 0))
    with jax.default_matmul_precision("highest"):
        return jax.jit(each)(variables["params"], inputs, targets)


def flat(gradients) -> np.ndarray:
    """All entries of gradients [b, k, ...] as [b, k, n], in float64."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(gradients)]
    rows = [leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves]
    return np.concatenate(rows, axis=-1).astype(np.float64)

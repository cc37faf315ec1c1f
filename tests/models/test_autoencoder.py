"""The autoencoder's shapes at any size, its code and its discriminator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.models import autoencoder
from jalpose.models.autoencoder import Code, Decoder, Discriminator, Encoder


def test_maps_halve_to_two_pixels_and_larger_images_take_more_layers():
    assert autoencoder.levels(32, 128) == [(16, 128), (8, 256), (4, 512), (2, 1024)]
    assert autoencoder.levels(64, 16)[-1] == (2, 128)
    assert len(autoencoder.levels(256, 1)) == 7
    assert autoencoder.levels(33, 1) == [(17, 1), (9, 2), (5, 4), (3, 8), (2, 8)]


@pytest.mark.parametrize("size", [8, 16, 33])
def test_an_image_goes_through_the_code_and_comes_back_in_its_size(size):
    images = jax.ShapeDtypeStruct((3, size, size, 3), jnp.float32)
    encoder, decoder = Encoder(5, 4), Decoder(size, 4)
    key = jax.random.key(0)

    def through(images):
        code, encoding = encoder.init_with_output(key, images, train=True)
        found, decoding = decoder.init_with_output(key, code.mean, train=True)
        return code, found, encoding, decoding

    code, found, encoding, decoding = jax.eval_shape(through, images)
    assert code.mean.shape == code.log_variance.shape == (3, 5)
    assert found.shape == images.shape and found.dtype == jnp.float32
    kernels = [v["kernel"].shape for k, v in encoding["params"].items() if "conv" in k]
    levels = autoencoder.levels(size, 4)
    assert [k[:2] for k in kernels] == [(4, 4)] * len(levels)
    assert [k[3] for k in kernels] == [channels for _, channels in levels]
    back = {k: v["kernel"].shape for k, v in decoding["params"].items() if "conv" in k}
    assert back["conv0"][3] == 3 and len(back) == len(levels)


def test_parameters_at_the_published_width():
    # By hand: 4x4 kernels 3-128-256-512-1024, batch norms of two numbers a channel, and
    # two linear layers from 2 x 2 x 1024 to 32.
    wanted = 16 * (3 * 128 + 128 * 256 + 256 * 512 + 512 * 1024)
    wanted += 2 * (128 + 256 + 512 + 1024) + 2 * (4096 * 32 + 32)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    params = jax.eval_shape(
        lambda x: Encoder(32, 128).init(jax.random.key(0), x, train=False), images
    )["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == wanted
    points = jax.ShapeDtypeStruct((1, 32), jnp.float32)
    params = jax.eval_shape(Discriminator(512).init, jax.random.key(0), points)
    sizes = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert sizes == 33 * 512 + 513 * 512 + 513


def test_a_finished_autoencoder_says_the_same_whatever_the_batch():
    images = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    encoder = Encoder(2, 4)
    variables = jax.jit(encoder.init, static_argnames="train")(
        jax.random.key(0), images, train=False
    )
    say = jax.jit(lambda images: encoder.apply(variables, images, train=False).mean)
    np.testing.assert_allclose(say(images)[1:2], say(images[1:2]), rtol=1e-5)


def test_samples_have_mean_and_variance_of_their_code():
    mean, deviation = jnp.array([[1.0, -2.0]]), np.array([0.5, 3.0])
    code = Code(
        jnp.tile(mean, (20_000, 1)), jnp.tile(jnp.log(deviation**2)[None], (20_000, 1))
    )
    found = np.asarray(autoencoder.sample(jax.random.key(0), code))
    np.testing.assert_allclose(found.mean(axis=0), mean[0], atol=0.06)
    np.testing.assert_allclose(found.std(axis=0), deviation, rtol=0.02)


def test_only_larger_images_are_shrunk():
    images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    for size in (0, 8, 9):
        assert autoencoder.shrunk(images, size) is images
    found = autoencoder.shrunk(jnp.full((2, 8, 8, 3), 0.25), 3)
    assert found.shape == (2, 3, 3, 3)
    np.testing.assert_allclose(found, 0.25, rtol=1e-6)

"""Images by stated rules: bit depths, transparency, sizes, and files that are not."""

import io
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from jalpose.data import images
from jalpose.data.source import DataError


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decode(encoded):
    return images.decode_rgb(encoded, what="image 'a'", advice="Restore it.")


def noise(size=(64, 48)):
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (size[1], size[0], 3), np.uint8)


class TestDecoding:
    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
    def test_16_bit_grey_is_scaled(self, kind):
        values = np.array([[0, 128, 129, 257], [1000, 32768, 65406, 65535]], np.uint16)
        found = decode(saved(Image.fromarray(values), kind))
        # value * 255 / 65535, rounded: 128 -> 0.498, 129 -> 0.502.
        assert found[..., 0].tolist() == [[0, 0, 1, 1], [4, 128, 254, 255]]
        assert (found == found[..., :1]).all()

    @pytest.mark.parametrize(
        ("dtype", "words"),
        [
            (np.int32, r"32-bit whole numbers \(Pillow's mode I\)"),
            (np.float32, r"32-bit floating-point numbers \(Pillow's mode F\)"),
        ],
    )
    def test_32_bit_images_are_refused_by_name(self, dtype, words):
        encoded = saved(Image.fromarray(np.ones((4, 5), dtype)), "TIFF")
        with pytest.raises(DataError, match=f"Cannot use image 'a': it holds {words}"):
            decode(encoded)

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
    def test_what_is_transparent_is_laid_on_white(self, mode):
        image = Image.new("RGBA", (2, 1), (200, 0, 0, 255))
        image.putpixel((1, 0), (200, 0, 0, 0))
        solid, clear = decode(saved(image.convert(mode), "PNG"))[0]
        assert clear.tolist() == [255, 255, 255]
        grey = (60,) * 3  # ITU-R 601: 0.299 * 200
        assert solid.tolist() == list(grey if mode == "LA" else (200, 0, 0))

    def test_half_transparent_is_half_white(self):
        image = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
        assert decode(saved(image, "PNG"))[0, 0].tolist() == [127, 127, 127]

    def test_pixels_stay_as_stored_whatever_exif_says(self):
        exif = Image.Exif()
        exif[0x0112] = 6
        encoded = saved(Image.fromarray(noise()), "JPEG", exif=exif)
        assert decode(encoded).shape == (48, 64, 3)
        about = images.facts(encoded, what="a", advice="")
        assert about == images.Facts(64, 48, rotated=True)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_a_tiff_stays_as_stored_too(self, orientation):
        exif, pixels = Image.Exif(), noise()
        exif[0x0112] = orientation
        for options in ({}, {"compression": "tiff_lzw"}):
            encoded = saved(Image.fromarray(pixels), "TIFF", exif=exif, **options)
            np.testing.assert_array_equal(decode(encoded), pixels)
            about = images.facts(encoded, what="a", advice="")
            assert about == images.Facts(64, 48, rotated=orientation > 1)

    @pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP", "MPO"])
    def test_the_first_of_several_pictures_is_taken_and_told(self, kind):
        first, other = Image.fromarray(noise()), Image.new("RGB", (64, 48))
        quality = {"lossless": True} if kind == "WEBP" else {}
        one, two = (
            saved(first, kind, save_all=True, append_images=more, **quality)
            for more in ([], [other])
        )
        np.testing.assert_array_equal(decode(two), decode(one))
        # Views beside a photograph are nothing that anybody would miss.
        about = images.facts(two, what="a", advice="")
        assert about == images.Facts(64, 48, rotated=False, several=kind != "MPO")
        assert not images.facts(one, what="a", advice="").several
        told = {"several": ["a", "b"]}
        assert (
            "2 of 9 images hold several pictures, e.g. a: the"
            in (images.notes(told, 9)[0])
        )

    def test_an_image_of_too_many_pixels_is_told_as_that(self, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
        encoded = saved(Image.new("L", (3000, 1000)), "PNG")
        message = "it has 3 million pixels, and at most 2 million are read; make it"
        with pytest.raises(DataError, match=message):
            decode(encoded)


class TestReading:
    def read(self, path):
        return images.read_image_file(
            path, what=f"image {path.name!r}", described_by="labels", advice="Do."
        )

    @pytest.mark.parametrize("there", ["im0001.JPG", "im0001.png"])
    def test_a_name_that_is_nearly_right_is_named(self, tmp_path, there):
        (tmp_path / there).touch()
        with pytest.raises(DataError, match=rf"No such file.*there is '{there}': ren"):
            self.read(tmp_path / "im0001.jpg")

    def test_nothing_alike_is_no_hint(self, tmp_path):
        (tmp_path / "im0002.jpg").touch()
        with pytest.raises(DataError, match=r"No such file or directory\. Do\."):
            self.read(tmp_path / "im0001.jpg")

    def test_a_link_that_leads_nowhere_and_a_folder_are_no_other_names(self, tmp_path):
        (tmp_path / "a.jpg").symlink_to("gone.jpg")
        with pytest.raises(DataError, match=r" \(it is a link to 'gone.jpg'\)"):
            self.read(tmp_path / "a.jpg")
        (tmp_path / "b.jpg").mkdir()
        with pytest.raises(DataError, match=r"Is a directory\. Do\."):
            self.read(tmp_path / "b.jpg")

    def test_a_file_of_somebody_else(self, tmp_path, monkeypatch):
        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("builtins.open", refuse)
        with pytest.raises(DataError, match=r"Cannot read .*: Permission denied\. Do"):
            self.read(tmp_path / "im0001.jpg")


def photograph(size):
    """Smooth shapes and a little noise, as photographs have: uint8 [H, W, 3]."""
    y, x = np.mgrid[: size[0], : size[1]] / 40
    waves = [np.sin(x * (1 + c) + np.cos(y)) + np.sin(y * 1.7 + c) for c in range(3)]
    rng = np.random.default_rng(0)
    rough = 128 + 45 * np.stack(waves, axis=-1) + rng.normal(0, 4, (*size, 3))
    return np.clip(rough, 0, 255).astype(np.uint8)


def entropy_coded(encoded):
    """Start and end of the data of the last scan."""
    head = encoded.rindex(b"\xff\xda")
    return head + 2 + int.from_bytes(encoded[head + 2 : head + 4]), len(encoded) - 2


@pytest.mark.parametrize("progressive", [False, True])
class TestStrictness:
    """JPEGs that Pillow decodes without a word."""

    def encoded(self, progressive, **options):
        return saved(
            Image.fromarray(noise((160, 120))),
            "JPEG",
            quality=85,
            progressive=progressive,
            **options,
        )

    def check(self, encoded):
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()
        images.check(encoded, what="image 'a'", advice="Restore it.")

    def test_a_whole_file_is_accepted(self, progressive):
        self.check(self.encoded(progressive))

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_cut_and_closed(self, progressive, share):
        encoded = self.encoded(progressive)
        start, end = entropy_coded(encoded)
        cut = encoded[: start + int(share * (end - start))].rstrip(b"\xff")
        with pytest.raises(DataError, match="data end before the picture does"):
            self.check(cut + b"\xff\xd9")

    def test_zero_bytes_in_the_middle(self, progressive):
        if progressive:
            pytest.skip("not promised")
        encoded = self.encoded(progressive)
        start, end = entropy_coded(encoded)
        at = (start + end) // 2 - 256
        holed = encoded[:at] + bytes(512) + encoded[at + 512 :]
        with pytest.raises(DataError, match="'a', it is truncated or damaged: its"):
            self.check(holed)

    @pytest.mark.parametrize("mode", ["RGB", "L"])
    @pytest.mark.parametrize("share", [0.02, 0.2, 0.4, 0.6, 0.8])
    def test_a_hole_of_zeros_anywhere(self, mode, share, progressive):
        if progressive:
            pytest.skip("not promised in every scan")
        image = Image.fromarray(photograph((400, 600))).convert(mode)
        encoded = saved(image, "JPEG", quality=80)
        self.check(encoded)
        start, end = entropy_coded(encoded)
        at = start + int(share * (end - start))
        holed = encoded[:at] + bytes(512) + encoded[at + 512 :]
        with pytest.raises(DataError, match="a run of 64 zero bytes or more"):
            self.check(holed)

    def test_long_runs_of_zeros_in_an_even_picture_are_no_hole(self, progressive):
        pixels = np.full((1200, 1600, 3), 255, np.uint8)
        pixels[:200, :200] = photograph((200, 200))
        options = {"optimize": True, "progressive": progressive, "quality": 30}
        encoded = saved(Image.fromarray(pixels), "JPEG", **options)
        assert progressive or bytes(100) in encoded
        self.check(encoded)

    @pytest.mark.parametrize("quality", [1, 10, 50, 95, 100])
    @pytest.mark.parametrize("optimize", [False, True])
    def test_no_quality_is_taken_for_a_hole(self, quality, optimize, progressive):
        options = {"optimize": optimize, "progressive": progressive}
        for pixels in (photograph((150, 200)), noise((150, 200))):
            image = Image.fromarray(pixels)
            self.check(saved(image, "JPEG", quality=quality, **options))

    @pytest.mark.parametrize("grey", [0, 127, 128, 255])
    def test_an_image_of_one_colour_is_whole(self, progressive, grey):
        image = Image.new("RGB", (200, 100), (grey,) * 3)
        self.check(saved(image, "JPEG", progressive=progressive))

    def test_grey_images_are_checked_too(self, progressive):
        image = Image.fromarray(noise((160, 120))).convert("L")
        encoded = saved(image, "JPEG", progressive=progressive)
        self.check(encoded)
        start, end = entropy_coded(encoded)
        cut = encoded[: (start + end) // 2].rstrip(b"\xff") + b"\xff\xd9"
        with pytest.raises(DataError, match="data end before the picture does"):
            self.check(cut)

    def test_one_interval_of_many_that_ends_early(self, progressive):
        encoded = self.encoded(progressive, restart_marker_rows=1)
        if progressive or b"\xff\xd1" not in encoded:
            pytest.skip("no restart markers")
        self.check(encoded)
        second = encoded.index(b"\xff\xd1")
        with pytest.raises(DataError, match="data end before the picture does"):
            self.check(encoded[: second - 60].rstrip(b"\xff") + encoded[second:])


@pytest.mark.data
def test_no_real_image_is_refused():
    root = pathlib.Path(os.environ.get("JALPOSE_DATA", "../shared/data"))
    files = sorted(root.glob("lsp*/images/*.jpg"))[::50] + sorted(
        root.glob("mpii/*.jpg")
    )
    if not files:
        pytest.skip("no real images")
    for file in files:
        images.check(file.read_bytes(), what=str(file), advice="")

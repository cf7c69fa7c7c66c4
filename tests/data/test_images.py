"""What a picture becomes: deep greys through one window, squares that lose nothing, files known by what they are."""

import io
import os
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image
from refusal import refused as one_sentence

from ssnas_colab.data.images import deep_values, scaled, to_rgb, to_square
from ssnas_colab.stages.loader import load_data

SPLITS = ("train", "val", "test")


def noise(seed, size=16):
    return np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)


def tiff(values):
    "A TIFF of one channel of this type, as medical programs write it."
    height, width = values.shape
    data, kind = values.tobytes(), {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    facts = [(256, width), (257, height), (258, 8 * values.itemsize), (259, 1), (262, 1), (273, 134), (277, 1)]
    facts += [(278, height), (279, len(data)), (339, kind)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in facts)
    return b"II*\0" + struct.pack("<IH", 8, len(facts)) + entries + struct.pack("<I", 0) + data


def folder_of(path, make, count=12, ending=".tif"):
    "Two classes of files whose bytes are `make(number)`."
    for c, kind in enumerate(("a", "b")):
        (path / kind).mkdir(parents=True)
        for i in range(count):
            (path / kind / f"{i}{ending}").write_bytes(make(100 * c + i))
    return path


def pixels(data):
    "All images of all splits by their place."
    return {int(place): image for split in data.images for place, image in zip(data.indices[split], data.images[split])}


def told(data, what):
    return " ".join(how for name, how in data.decisions if name == what)


def refused(*words, **arguments):
    one_sentence(*words, act=lambda: load_data(**arguments))


# deep greys


DEEP = {
    "radiographs of 12 bits": lambda rng: rng.integers(0, 4096, (16, 16)).astype(np.uint16),
    "a CT with an offset": lambda rng: rng.integers(31768, 33168, (16, 16)).astype(np.uint16),
    "Hounsfield units": lambda rng: rng.integers(-1000, 400, (16, 16)).astype(np.int16),
    "32 bits": lambda rng: rng.integers(100_000, 3_000_000, (16, 16)).astype(np.int32),
    "floats": lambda rng: rng.normal(0, 0.01, (16, 16)).astype(np.float32),
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_greys_keep_their_greys(tmp_path, kind):
    values = {seed: DEEP[kind](np.random.default_rng(seed)) for seed in [*range(12), *range(100, 112)]}
    data = load_data(folder_of(tmp_path / "x", lambda seed: tiff(values[seed])), image_size=16)
    assert sum(map(len, data.images.values())) == 24 and data.set_aside == ()
    assert min(len(np.unique(image)) for image in pixels(data).values()) > 60
    low, high = data.window
    every = np.concatenate([one.ravel() for one in values.values()])
    assert (every < low).mean() < 0.02 and (every > high).mean() < 0.02
    assert f"{low:.6g} to {high:.6g}" in told(data, "window") and "24 of 24" in told(data, "window")
    first = next(image for place, image in sorted(pixels(data).items()) if place == 0)
    assert (first[0] == scaled(values[0], data.window)).all()


def test_one_window_for_the_whole_set(tmp_path):
    dark, light = (np.full((16, 16), base, np.uint16) + np.arange(16, dtype=np.uint16) for base in (1000, 2000))
    data = load_data(folder_of(tmp_path / "x", lambda seed: tiff((dark if seed < 100 else light) + seed % 100)))
    by_class = [np.concatenate([data.images[s][data.labels[s] == c] for s in SPLITS]) for c in (0, 1)]
    assert by_class[0].max() < 20 and by_class[1].min() > 230


def test_a_window_can_be_set_and_is_asked_for_properly(tmp_path):
    where = folder_of(tmp_path / "x", lambda seed: tiff(DEEP["Hounsfield units"](np.random.default_rng(seed))))
    for window in ("-500:300", (-500, 300)):
        data = load_data(where, window=window)
        assert data.window == (-500, 300) and "as it was set" in told(data, "window")
    assert load_data(where, window="-500:300").fingerprint() != load_data(where).fingerprint()
    for wrong in ("300:-500", "a:b", "7", "nan:1", "1:1", (1, 2, 3)):
        refused("window", "LOW:HIGH", name_or_path=where, window=wrong)


def test_files_that_use_all_16_bits_keep_what_they_had(tmp_path):
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    data = load_data(folder_of(tmp_path / "x", lambda seed: tiff(np.roll(ramp, seed))))
    assert data.window == (0, 65535)
    assert all((np.sort(image.ravel()) == np.arange(256)).all() for image in pixels(data).values())


def test_8_bits_keep_their_bits_beside_deep_ones(tmp_path):
    def make(seed):
        buffer = io.BytesIO()
        Image.fromarray(noise(seed)).save(buffer, "png")
        return buffer.getvalue() if seed % 2 else tiff(noise(seed).astype(np.uint16) * 16)

    data = load_data(folder_of(tmp_path / "x", make, ending=".png"), image_size=16)
    names = sorted(f"{kind}/{i}.png" for kind in "ab" for i in range(12))
    for place, image in pixels(data).items():
        seed = 100 * (names[place][0] == "b") + int(names[place][2:-4])
        if seed % 2:
            assert (image[0] == noise(seed)).all()
    assert "12 of 24" in told(data, "window")


def test_the_window_is_of_training_images_alone(tmp_path):
    folder_of(tmp_path / "train", lambda seed: tiff(noise(seed).astype(np.uint16) * 10))
    folder_of(tmp_path / "test", lambda seed: tiff(noise(seed).astype(np.uint16) * 10 + 1000))
    low, high = load_data(tmp_path).window
    assert 0 <= low < 50 and 2500 < high < 2600


def test_what_comes_out_flat_is_set_aside_and_a_flat_set_refused(tmp_path):
    def make(seed):
        values = noise(seed).astype(np.uint16) + 5000
        return tiff(values * 0 + 60_000 if seed == 3 else values)

    data = load_data(folder_of(tmp_path / "x", make, count=30))
    assert [name for name, _ in data.set_aside] == ["a/3.tif"] and "one grey" in data.set_aside[0][1]
    flat = folder_of(tmp_path / "flat", lambda seed: tiff(np.full((16, 16), 7, np.uint16)), count=1)
    for i in range(5):
        (flat / "a" / f"{i}x.tif").write_bytes(tiff(np.full((16 + i, 16), 7, np.uint16)))
        (flat / "b" / f"{i}y.tif").write_bytes(tiff(np.full((16, 20 + i), 7, np.uint16)))
    refused("flat", "one value only", name_or_path=flat)
    for i, kind in enumerate("ab" * 5):
        path = tmp_path / "black" / kind
        path.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16 + i, 16)).save(path / f"{i}.png")
    refused("black", "one colour only", name_or_path=tmp_path / "black")


def test_one_image_of_one_colour_is_used_and_said(tmp_path):
    def make(seed):
        buffer = io.BytesIO()
        Image.fromarray(noise(seed) * (seed != 5)).save(buffer, "png")
        return buffer.getvalue()

    data = load_data(folder_of(tmp_path / "x", make, ending=".png"))
    assert data.set_aside == () and "1 of 24 images show one colour only (a/5.png)" in told(data, "one colour")


def test_hidden_colours_are_seen_where_all_is_transparent():
    pixels = np.dstack([np.dstack([noise(1)] * 3), np.zeros((16, 16), np.uint8)])
    assert (np.asarray(to_rgb(Image.fromarray(pixels))) == pixels[..., :3]).all()
    grey = Image.merge("LA", [Image.fromarray(noise(2)), Image.new("L", (16, 16), 0)])
    assert (np.asarray(to_rgb(grey))[..., 0] == noise(2)).all()


def png16(values):
    "A PNG of 16 bits a colour, (H, W, 3) uint16."

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_colours_of_16_bits_are_not_flattened_in_silence(tmp_path):
    def make(seed, factor):
        return png16(np.dstack([noise(seed).astype(np.uint16) * factor] * 3))

    full = folder_of(tmp_path / "full", lambda seed: make(seed, 257), ending=".png")
    assert (pixels(load_data(full, image_size=16))[0][0] == noise(0)).all()
    dim = folder_of(tmp_path / "dim", lambda seed: make(seed, 16), ending=".png")
    refused("dim", "16 bits a colour", name_or_path=dim)


# squares


def test_nothing_is_cut_off_unless_told(tmp_path):
    def make(seed):
        wide = np.zeros((32, 128), np.uint8)
        wide[:, :8] = 250  # the finding, at the edge
        wide[10 + seed // 100, 50 + seed % 20] = 9
        wide[20, 50:78] = seed % 100
        buffer = io.BytesIO()
        Image.fromarray(wide).save(buffer, "png")
        return buffer.getvalue()

    where = folder_of(tmp_path / "x", make, ending=".png")
    data = load_data(where)
    assert data.size == (64, 64) and (data.fit, load_data(where, fit="crop").fit) == ("pad", "crop")
    image = data.images["train"][0, 0]
    assert image[24:40, :3].min() > 200 and not image[:24].any() and not image[40:].any()
    assert "24 of 24 pictures are no squares: all of each is kept" in told(data, "squares")
    cropped = load_data(where, fit="crop")
    assert cropped.images["train"].max() < 100
    assert "takes 75% of each on average, 75% at most" in told(cropped, "squares")
    assert load_data(where, fit="stretch").images["train"][0, 0, :, 0].min() > 200
    refused("fit", "pad", name_or_path=where, fit="squash")


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
def test_squares_keep_their_bits_whatever_the_fit(fit):
    image = Image.fromarray(noise(0, 40))
    assert (np.asarray(to_square(image, 40, fit)) == noise(0, 40)).all()
    assert (np.asarray(to_square(image, 16, fit)) == np.asarray(to_square(image, 16))).all()


def test_arrays_are_made_square_in_the_same_ways(tmp_path):
    images = np.zeros((40, 8, 24), np.uint8)
    images[:, :, :2], images[np.arange(40), 0, 4 + np.arange(40) % 20] = 250, 9
    np.savez(tmp_path / "x.npz", train_images=images, train_labels=np.arange(40) % 2)
    data = load_data(tmp_path / "x.npz")
    assert data.size == (24, 24) and (data.images["train"][:, 0, 8:16, :2] == 250).all()
    assert load_data(tmp_path / "x.npz", fit="crop").size == (8, 8)


# files


def encoded(seed, kind="jpeg"):
    buffer = io.BytesIO()
    Image.fromarray(noise(seed)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("ending", [".jfif", "", ".JPG", ".image", ".001"])
def test_a_file_is_what_it_is_not_what_it_is_called(tmp_path, ending):
    where = folder_of(tmp_path / "x", encoded, ending=ending)
    assert sum(map(len, load_data(where).images.values())) == 24
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in where.rglob("*"):
            archive.write(path, path.relative_to(where))
    assert load_data(tmp_path / "x.zip").fingerprint() == load_data(where).fingerprint()


def test_arrays_in_files_are_pictures(tmp_path):
    def make(seed):
        buffer = io.BytesIO()
        np.save(buffer, np.dstack([noise(seed)] * 3) if seed % 2 else noise(seed))
        return buffer.getvalue()

    data = load_data(folder_of(tmp_path / "x", make, ending=".npy"), image_size=16)
    assert (pixels(data)[0][0] == noise(0)).all() and sum(map(len, data.images.values())) == 24
    where = folder_of(tmp_path / "deep", lambda seed: make(2 * seed), ending=".npy", count=30)
    np.save(where / "a" / "0.npy", np.zeros((5, 16, 16)))
    with open(where / "a" / "1.npy", "wb") as file:
        np.save(file, np.array([{}]), allow_pickle=True)
    aside = dict(load_data(where).set_aside)
    assert "several pictures" in aside["a/0.npy"] and "no picture" in aside["a/1.npy"]


def test_what_is_not_read_is_listed(tmp_path):
    where = folder_of(tmp_path / "x", encoded, ending=".jpg")
    (where / "a" / "notes.txt").write_text("P5 is no picture here")
    (where / "b" / "scan.mat").write_bytes(b"MATLAB 5.0")
    (where / "b" / "@eaDir").mkdir()
    (where / "b" / "@eaDir" / "thumb.jpg").write_bytes(encoded(999))
    data = load_data(where)
    assert sum(map(len, data.images.values())) == 24
    assert [name for name, _ in data.not_read] == ["a/notes.txt", "b/@eaDir/thumb.jpg", "b/scan.mat"]
    assert "3 are no images" in told(data, "other files") and "b/scan.mat" in data.describe()


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.mat").write_bytes(b"MATLAB")
    refused("no images", "3 .mat", name_or_path=tmp_path)


# DICOM


def dicom(values, *, kind="MONOCHROME2", window=None, slope=1, offset=0, frames=1, signed=False):
    "The bytes of a DICOM file with these values."
    pydicom = pytest.importorskip("pydicom")
    made = pydicom.dataset.FileDataset(None, {}, preamble=bytes(128))
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    made.Rows, made.Columns = values.shape[-2:]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, kind
    made.BitsAllocated = made.BitsStored = 8 * values.itemsize
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(signed)
    made.RescaleSlope, made.RescaleIntercept = slope, offset
    if window:
        made.WindowCenter, made.WindowWidth = window
    if frames > 1:
        made.NumberOfFrames = frames
    made.PixelData = values.tobytes()
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def hounsfield(seed):
    return np.random.default_rng(seed).integers(0, 2000, (16, 16)).astype(np.uint16)


def test_dicom_files_are_seen_through_the_window_they_name(tmp_path):
    def make(seed):
        return dicom(hounsfield(seed), window=[40, 400], offset=-1000)

    data = load_data(folder_of(tmp_path / "x", make, ending=".dcm"), image_size=16)
    assert data.window == (-160, 240) and "that 24 of them name" not in told(data, "squares")
    assert (pixels(data)[0][0] == scaled(hounsfield(0) - 1000.0, (-160, 240))).all()
    assert "the median of the windows" in told(data, "window")
    other = load_data(tmp_path / "x", window="-1000:1000", image_size=16)
    assert (pixels(other)[0][0] == scaled(hounsfield(0) - 1000.0, (-1000, 1000))).all()


def test_films_on_which_white_means_little_are_inverted(tmp_path):
    plain = folder_of(tmp_path / "two", lambda seed: dicom(hounsfield(seed)), ending="")
    film = folder_of(tmp_path / "one", lambda seed: dicom(hounsfield(seed), kind="MONOCHROME1"), ending="")
    one, two = (pixels(load_data(where, image_size=16)) for where in (film, plain))
    assert all((one[place] == 255 - two[place]).all() for place in two)
    eight = folder_of(tmp_path / "eight", lambda seed: dicom(noise(seed)), ending=".dcm")
    assert (pixels(load_data(eight, image_size=16))[0][0] == noise(0)).all()


def test_several_frames_and_damage_are_set_aside_by_name(tmp_path):
    where = folder_of(tmp_path / "x", lambda seed: dicom(noise(seed)), ending=".dcm", count=30)
    (where / "a" / "0.dcm").write_bytes(dicom(np.stack([noise(0), noise(1)]), frames=2))
    (where / "b" / "1.dcm").write_bytes(bytes(128) + b"DICM" + bytes(50))
    aside = dict(load_data(where).set_aside)
    assert aside["a/0.dcm"] == "several pictures in one file (2)" and aside["b/1.dcm"].startswith("a DICOM file")


def test_without_pydicom_a_dicom_file_says_what_to_do(tmp_path):
    folder_of(tmp_path / "x", lambda seed: bytes(128) + b"DICM" + bytes([seed % 256] * 9), ending=".dcm")
    code = "import sys; sys.modules['pydicom'] = None\nfrom ssnas_colab import load_data, UserError\n"
    code += f"try: load_data({str(tmp_path / 'x')!r})\nexcept UserError as error: print(error)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ).stdout
    assert "24 of 24" in said and "pip install pydicom" in said


# what is kept


def test_runs_of_older_versions_read_16_bits_as_they_did():
    deep = Image.fromarray(np.array([[0, 128, 129, 300, 65535]], np.uint16))
    assert np.asarray(to_rgb(deep))[0, :, 0].tolist() == [0, 0, 1, 1, 255]
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert (np.asarray(to_rgb(Image.fromarray(values)))[..., 0] == (values.astype(int) + 128) // 257).all()
    assert deep_values(Image.new("1", (4, 4))) is None and deep_values(Image.new("L", (4, 4))) is None

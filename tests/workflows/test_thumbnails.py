"""`make_thumbnails`: pictures of any kind, broken and hostile ones among them, in several sizes."""

import os
import pickle
import shutil
import struct
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, ImageCms

import penstock
from penstock.durable import dead_roots
from penstock.engines import processes
from penstock.flow import Pipeline, PipelineEngine
from penstock.workflows import (
    PathError,
    PictureError,
    StoreError,
    Thumbnailer,
    ThumbnailJob,
    make_thumbnails,
    thumbnail_pipeline,
)

from .in_workers import meet_dangers

pytestmark = pytest.mark.real_time


def picture(width=120, height=80, mode="RGB"):
    """Red to the left, blue to the right, lighter below."""
    left = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", (left.point(lambda v: 255 - v), down, left)).convert(mode)


def encoded(image, kind="JPEG", **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def source(tmp_path):
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


@pytest.fixture
def target(tmp_path):
    return tmp_path / "thumbs"


def small(source, data, name="p.jpg", **options):
    """What a picture becomes: by name, as pictures."""
    path = source / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    options.setdefault("sizes", (16, 64, 4))
    found = Thumbnailer(**options)(penstock.File(str(path), name, ""))
    return {each: Image.open(BytesIO(content)) for each, content in found}


def there(target):
    return {
        str(path.relative_to(target)): path.read_bytes()
        for path in target.rglob("*")
        if path.is_file() and ".penstock" not in path.parts
    }


def test_each_size_fits_into_its_square_and_none_is_enlarged(source):
    made = small(source, encoded(picture(120, 80)))
    assert {name: image.size for name, image in made.items()} == {
        "64/p.jpg": (64, 43),
        "16/p.jpg": (16, 11),
        "4/p.jpg": (4, 3),
    }
    assert {image.size for image in small(source, encoded(picture(3, 2))).values()} == {(3, 2)}
    assert {image.size for image in small(source, encoded(picture(1, 1))).values()} == {(1, 1)}
    assert small(source, encoded(picture(3_000, 2)))["4/p.jpg"].size == (4, 1)


@pytest.mark.parametrize(
    ("kind", "name", "becomes", "called"),
    [
        ("JPEG", "a/P.JPG", "JPEG", "a/P.JPG"),
        ("JPEG", "p.jpeg", "JPEG", "p.jpeg"),
        ("JPEG", "p.png", "JPEG", "p.png.jpg"),  # the suffix lies
        ("JPEG", "p", "JPEG", "p.jpg"),
        ("PNG", "p.png", "PNG", "p.png"),
        ("PNG", "p.jpg", "PNG", "p.jpg.png"),
        ("GIF", "p.gif", "PNG", "p.gif.png"),
        ("BMP", "p.bmp", "PNG", "p.bmp.png"),
        ("WEBP", "p.webp", "WEBP", "p.webp"),
        ("TIFF", "p.tif", "JPEG", "p.tif.jpg"),
        ("AVIF", "p.avif", "JPEG", "p.avif.jpg"),
    ],
)
def test_the_content_says_what_it_is_and_the_name_keeps_up(source, kind, name, becomes, called):
    made = small(source, encoded(picture(), kind), name)
    assert list(made) == [f"{size}/{called}" for size in (64, 16, 4)]
    assert {image.format for image in made.values()} == {becomes}


@pytest.mark.parametrize("turned", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says_and_loses_its_metadata(source, turned):
    image = picture(120, 80)
    exif = Image.Exif()
    exif[0x0112] = turned
    exif[0x010F] = "a camera"
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpositions of Pillow
    stored = image if turned == 1 else image.transpose(Image.Transpose(back[turned]))
    (made, *_) = small(source, encoded(stored, "PNG", exif=exif), "p.png").values()
    assert made.size == (64, 43)
    assert made.getexif() == {}
    left, right = made.getpixel((2, 20)), made.getpixel((61, 20))
    assert left[0] - left[2] > 150
    assert right[2] - right[0] > 150
    assert made.getpixel((30, 40))[1] > made.getpixel((30, 2))[1]


def test_broken_exif_turns_nothing(source):
    broken = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03" * 9
    (made, *_) = small(source, encoded(picture(), exif=broken)).values()
    assert made.size == (64, 43)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"])
def test_every_mode_becomes_what_it_looks_like(source, mode):
    """Of 16 bits Pillow would cut off what is above 255: nearly all would be white."""
    kind = "JPEG" if mode in {"CMYK", "YCbCr"} else "TIFF"
    image = picture(120, 80)
    if mode in {"I;16", "I", "F"}:
        grey = image.convert("L").convert("I").point(lambda value: value * 257)
        image = grey.convert(mode) if mode != "I" else grey
    elif mode == "LAB":
        profiles = [ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")]
        image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    else:
        image = image.convert(mode)
    (made, *_) = small(source, encoded(image, kind)).values()
    assert made.mode == ("L" if mode in {"1", "L", "I;16", "I", "F"} else "RGB")
    wanted = picture(120, 80).convert("L").resize(made.size)
    got = made.convert("L")
    off = [abs(a - b) for a, b in zip(wanted.tobytes(), got.tobytes(), strict=True)]
    assert sum(off) / len(off) < (60 if mode == "LAB" else 25)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_stays(source, mode):
    image = Image.new("RGBA", (100, 100), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 50, 100))
    if mode == "P":
        image = image.convert("RGB").quantize(4)
        data = encoded(image, "GIF", transparency=image.getpixel((10, 10)))
    else:
        data = encoded(image.convert(mode), "PNG")
    (made, *_) = small(source, data, "p.png").values()
    assert made.format == "PNG"
    assert made.convert("RGBA").getpixel((10, 30))[3] == 0
    assert made.convert("RGBA").getpixel((50, 30))[3] == 255


def test_a_colour_profile_stays_where_it_still_fits(source):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert small(source, encoded(picture(), icc_profile=profile))["64/p.jpg"].info["icc_profile"] == profile
    cmyk = encoded(picture(mode="CMYK"), icc_profile=profile)
    assert "icc_profile" not in small(source, cmyk)["64/p.jpg"].info


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_only_the_first_picture_is_read(source, kind, monkeypatch):
    """However many there are: a few bytes each can be millions of pixels."""
    frames = [Image.new("RGB", (50, 50), colour) for colour in ("red", "green", "blue")] * 20
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    sought = []
    monkeypatch.setattr(Image.Image, "seek", lambda self, frame: sought.append(frame))
    (made, *_) = small(source, data, "p").values()
    assert made.convert("RGB").getpixel((5, 5))[0] > 200
    assert not any(sought)


def png_of(width, height, data=b""):
    """A PNG that declares a size, whatever it has."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


BOMB = zlib.compress(b"\0" * 11_000 * 10_001, 9)
UNREAD = "no picture that can be read: "
UNKNOWN = "no picture that can be read: its format is not known"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", UNKNOWN),
        (b"no picture", UNKNOWN),
        (encoded(picture())[:1_000], UNREAD),
        (encoded(picture(), "PNG")[:-200], UNREAD),
        (encoded(picture(), "GIF")[:400], UNREAD),
        (encoded(picture(), "WEBP")[:200], UNREAD),
        (png_of(11_000, 10_000, BOMB), r"11,000 x 10,000 pixels, more than 100,000,000 \(max_pixels\)"),
        (png_of(2**31 - 1, 2**31 - 1), f"{UNREAD}Image size"),
        (png_of(0, 0), UNREAD),
        (png_of(100, 100, zlib.compress(b"\0" * 50)), UNREAD),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", UNKNOWN),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", UNKNOWN),
    ],
    ids=range(12),
)
def test_what_is_broken_or_hostile_is_refused_by_name(source, data, message):
    """Programs of PostScript are not run."""
    with pytest.raises(PictureError, match=message) as raised:
        small(source, data)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_a_large_picture_is_not_copied(source, monkeypatch):
    """It may take all the memory there is; what is made of it is small."""
    data, copied = encoded(picture()), []
    monkeypatch.setattr(Image.Image, "copy", lambda image: copied.append(image.size))
    assert small(source, data)["64/p.jpg"].size == (64, 43)
    assert copied == []


def test_a_large_file_is_refused_before_it_is_read(source):
    path = source / "p.jpg"
    path.touch()
    os.truncate(path, 100_000_001)
    with pytest.raises(PictureError, match=r"100,000,001 bytes, more than 100,000,000 \(max_file_size\)"):
        Thumbnailer()(penstock.File(str(path), "p.jpg", ""))
    with pytest.raises(PictureError, match="no such file or directory"):
        Thumbnailer()(penstock.File(str(source / "gone.jpg"), "gone.jpg", ""))


def three(source):
    for name in ("a.jpg", "sub/b.png", "sub/c.gif"):
        (source / name).parent.mkdir(exist_ok=True)
        picture().save(source / name)


INLINE = {"engine": "inline", "sizes": [32, 8]}


async def test_a_second_run_does_nothing_and_changes_are_done(source, target):
    three(source)
    report = await make_thumbnails(source, target, **INLINE)
    assert (report.pictures, report.thumbnails, report.failed) == (3, 6, 0)
    names = {f"{size}/{name}" for size in (32, 8) for name in ("a.jpg", "sub/b.png", "sub/c.gif.png")}
    assert there(target).keys() == names
    report = await make_thumbnails(source, target, **INLINE)
    assert (report.pictures, report.unchanged) == (0, 3)
    picture(80, 120).save(source / "a.jpg")
    (source / "sub" / "b.png").rename(source / "d.png")
    report = await make_thumbnails(source, target, **INLINE)
    assert (report.pictures, report.unchanged, report.missing, report.removed) == (2, 1, 1, 0)
    report = await make_thumbnails(source, target, **INLINE, prune=True)
    assert (report.pictures, report.unchanged, report.removed) == (0, 3, 1)
    assert "32/sub/b.png" not in there(target)
    with Image.open(target / "32" / "a.jpg") as made:
        assert made.size == (21, 32)


async def test_other_sizes_have_all_done_again(source, target):
    three(source)
    await make_thumbnails(source, target, **INLINE)
    report = await make_thumbnails(source, target, engine="inline", sizes=(32, 16))
    assert (report.pictures, report.unchanged) == (3, 0)
    assert {name.partition("/")[0] for name in there(target)} == {"32", "16"}


async def test_what_fails_is_set_aside_keeps_what_it_had_and_is_tried_again(source, target):
    three(source)
    await make_thumbnails(source, target, **INLINE)
    before = there(target)
    (source / "a.jpg").write_bytes(b"broken")
    for _ in range(2):
        report = await make_thumbnails(source, target, **INLINE)
        assert (report.pictures, report.unchanged, report.failed) == (0, 2, 1)
        (failure,) = report.failures
        assert (failure.path, failure.reason) == (str(source / "a.jpg"), UNKNOWN)
    assert there(target) == before
    assert [root.key for root in dead_roots(penstock.Files(target))] == ["a.jpg"]
    picture(10, 10).save(source / "a.jpg")
    assert (await make_thumbnails(source, target, **INLINE)).pictures == 1


async def test_names_that_become_one_are_told(source, target):
    """`x.png` that is a JPEG becomes `x.png.jpg`, which is another picture."""
    (source / "x.png").write_bytes(encoded(picture()))
    picture().save(source / "x.png.jpg")
    report = await make_thumbnails(source, target, **INLINE)
    assert (report.pictures, report.failed) == (1, 1)
    assert "cannot be a file of this root" in report.failures[0].reason


async def test_the_target_may_lie_in_the_source_and_is_no_source(source):
    three(source)
    target = source / "sub" / "out [1]"
    for pictures in (3, 0):
        report = await make_thumbnails(source, target, **INLINE)
        assert (report.pictures, report.failed) == (pictures, 0)
    for bad in (source, source / "sub" / ".."):
        with pytest.raises(penstock.OptionError, match="target must be a directory of its own"):
            ThumbnailJob(source, bad, **INLINE)
    inner = source.parent / "out" / "32" / "photos"
    shutil.copytree(source, inner)
    with pytest.raises(penstock.OptionError, match="the pictures are there"):
        ThumbnailJob(inner, source.parent / "out", **INLINE)


async def test_files_of_others_in_the_target_stay(source, target):
    three(source)
    (target / "32").mkdir(parents=True)
    (target / "32" / "a.jpg").write_text("of others")
    report = await make_thumbnails(source, target, **INLINE)
    assert (report.pictures, report.failed) == (2, 1)
    assert (target / "32" / "a.jpg").read_text() == "of others"
    assert not (target / "8" / "a.jpg").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": []}, r"sizes must be different numbers from 1 to 65,535, got \[\]"),
        ({"sizes": [4, 4]}, r"sizes must be different numbers from 1 to 65,535, got \[4, 4\]"),
        ({"sizes": [0]}, "sizes must be an int >= 1, got 0"),
        ({"sizes": [70_000]}, "sizes must be different"),
        ({"sizes": "64"}, "sizes must be several numbers, got '64'"),
        ({"sizes": 64}, "sizes must be several numbers"),
        ({"max_pixels": 10**9}, "max_pixels must be at most 178,956,970, got 1000000000"),
        ({"max_file_size": 0}, "max_file_size must be an int >= 1, got 0"),
        ({"concurrency": 0}, "concurrency must be an int >= 1, got 0"),
        ({"engine": "gpu"}, "engine must be"),
        ({"engine": "inline", "timeout": 1}, "timeout must not be given"),
        ({"timeout": 0}, "timeout must be"),
        ({"prune": 1}, "prune must be"),
        ({"colour": 1}, "thumbnails have no option 'colour': there are concurrency, engine"),
    ],
)
def test_bad_options_are_named(source, target, options, message):
    with pytest.raises(penstock.OptionError, match=message):
        ThumbnailJob(source, target, **options)
    assert not target.exists()


async def test_bad_places_are_named(source, target):
    with pytest.raises(PathError, match="photos/no: no such directory"):
        ThumbnailJob(source / "no", target)
    (source / "file").touch()
    with pytest.raises(PathError, match="file: not a directory"):
        ThumbnailJob(source / "file", target)
    with pytest.raises(StoreError, match="its directory does not exist"):
        await make_thumbnails(source, target / "a" / "b", **INLINE)


async def test_it_is_a_streaming_pipeline_and_a_step_with_equal_results(source, target, tmp_path):
    three(source)
    pipeline = thumbnail_pipeline(**INLINE)
    files = await penstock.files(source).to_list()
    streamed = await pipeline.to_list(files)
    batch = Pipeline("batch", takes=list).add(pipeline.as_step())
    result = await PipelineEngine(tmp_path / "work").run(batch, files)
    assert result.error is None
    assert sorted(streamed) == sorted(map(tuple, result.output))
    assert (await make_thumbnails(source, target, **INLINE)).thumbnails == 6
    assert sorted(streamed) == sorted(there(target).items())


@pytest.mark.slow
async def test_in_processes_a_picture_that_kills_or_takes_too_long_is_set_aside(source, target):
    """The others go on: the process that reads a picture is not that of the run."""
    for number in range(6):
        picture(40 + number, 30).save(source / f"{number}.png")
    (source / "kills.png").write_bytes(b"kills")
    (source / "hangs.png").write_bytes(b"hangs")
    async with processes(2, initializer=meet_dangers) as engine:
        report = await make_thumbnails(source, target, sizes=[32, 8], timeout=0.5, engine=engine)
    assert (report.pictures, report.failed) == (6, 2)
    reasons = {Path(each.path).name: each.reason for each in report.failures}
    assert reasons["hangs.png"] == "timed out after 0.5 s"
    assert "worker" in reasons["kills.png"]
    assert len(there(target)) == 12


async def test_a_run_is_stopped_in_order_and_goes_on(source, target, monkeypatch):
    for number in range(20):
        picture(40 + number, 30).save(source / f"{number:02}.png")
    job = ThumbnailJob(source, target, **INLINE, concurrency=1)
    made = Thumbnailer.__call__

    def stopping(self, file):
        if file.key == "03.png":
            job.stop()
        return made(self, file)

    monkeypatch.setattr(Thumbnailer, "__call__", stopping)
    report = await job.run()
    monkeypatch.undo()
    assert report.interrupted
    assert 3 < report.pictures < 20
    assert (await make_thumbnails(source, target, **INLINE)).pictures >= 20 - report.pictures
    assert len(there(target)) == 40

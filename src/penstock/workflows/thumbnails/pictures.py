"""Makes pictures small. What it is given may be broken, hostile, or no picture at all."""

import os
import warnings
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Final, cast

from penstock.core.errors import PenstockError
from penstock.core.text import one_line
from penstock.sources.files import File

if TYPE_CHECKING:
    from PIL.Image import Image

SIZES: Final = (64, 256, 1024)
MAX_PIXELS: Final = 100_000_000
MOST_PIXELS: Final = 178_956_970
"""What Pillow itself opens, at most."""

MAX_FILE_SIZE: Final = 100_000_000
QUALITY: Final = 85

_KINDS: Final = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF")
"""What is opened: formats whose readers run no other program, as that of PostScript does."""

_SUFFIXES: Final = {"JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "PNG": (".png",), "WEBP": (".webp",)}
_LOSSLESS: Final = {"PNG", "GIF", "BMP"}
_OF_16_BITS: Final = 65_535

type Thumbnail = tuple[str, bytes]
"""The name of a file, from the target, and its content."""


class PictureError(PenstockError):
    """A file that is no picture, or one that is not made small; the message says why."""


@dataclass(frozen=True, slots=True)
class Thumbnailer:
    """Makes a picture small, in several sizes: each fits into a square of so many pixels; none is larger than it was.

    Only the first picture of an animation is taken. It is turned as its EXIF says, and loses all metadata but its
    colour profile. JPEG and WebP stay that; PNG, GIF and BMP become PNG; others PNG if they are transparent, else JPEG.
    The name stays, below the size; it gets the suffix of the format if it has another.

    Attributes:
        sizes: pixels of the longer side.
        max_pixels: of the original; one that declares more is refused before it is decoded.
        max_file_size: bytes.
    """

    sizes: tuple[int, ...] = SIZES
    max_pixels: int = MAX_PIXELS
    max_file_size: int = MAX_FILE_SIZE

    def __call__(self, file: File) -> list[Thumbnail]:
        """Return the names and the contents, the largest size first.

        Raises:
            PictureError: it cannot be made small.
        """
        from PIL import UnidentifiedImageError  # noqa: PLC0415 -- an extra, and only where it runs

        data = self._read(file)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what Pillow says of broken metadata, and of large pictures
                return self._made(file.key, data)
        except PictureError:
            raise
        except UnidentifiedImageError:
            raise PictureError("no picture that can be read: its format is not known") from None
        except MemoryError:
            raise PictureError("too large for the memory there is") from None
        except Exception as error:  # the readers of a dozen formats raise whatever they meet
            raise PictureError(f"no picture that can be read: {_said(error)}") from error

    def _read(self, file: File) -> bytes:
        try:
            size = os.stat(file.path).st_size  # noqa: PTH116 -- a string
            if size > self.max_file_size:
                raise PictureError(f"{size:,} bytes, more than {self.max_file_size:,} (max_file_size)")
            return file.read_bytes()
        except OSError as error:
            raise PictureError((error.strerror or str(error)).lower()) from error

    def _made(self, key: str, data: bytes) -> list[Thumbnail]:
        from PIL import Image  # noqa: PLC0415 -- as above

        Image.init()
        kinds = tuple(kind for kind in _KINDS if kind in Image.OPEN)  # AVIF is not in every Pillow
        with Image.open(BytesIO(data), formats=kinds) as original:
            width, height = original.size
            if width * height > self.max_pixels:
                raise PictureError(f"{width:,} x {height:,} pixels, more than {self.max_pixels:,} (max_pixels)")
            kind = original.format or ""
            largest = max(self.sizes)
            original.draft(None, (largest, largest))  # a JPEG is decoded at half its size, or less
            original.load()
            _turn(original)
            small = _plain(original)  # perhaps the same: of a large picture there is no room for another
            profile = original.info.get("icc_profile") if small.mode == original.mode else None
        form = _form(kind, small)
        name = key if key.lower().endswith(_SUFFIXES[form]) else f"{key}{_SUFFIXES[form][0]}"
        made: list[Thumbnail] = []
        for size in sorted(self.sizes, reverse=True):
            small.thumbnail((size, size), Image.Resampling.LANCZOS)
            made.append((f"{size}/{name}", _encoded(small, form, profile)))
        return made


def _turn(image: "Image") -> None:
    """Turn it as its EXIF says, if that can be read: it is broken in as many ways as there are cameras."""
    from PIL import ImageOps  # noqa: PLC0415 -- as above

    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def _plain(image: "Image") -> "Image":
    """Return it in a mode that can be made small and stored: grey or colours of 8 bits, perhaps with transparency."""
    if image.mode.startswith(("I", "F")):
        return _scaled(image)
    if image.has_transparency_data:
        return image if image.mode in {"RGBA", "LA"} else image.convert("RGBA")
    if image.mode in {"L", "RGB"}:
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _scaled(image: "Image") -> "Image":
    """Return grey of 16 or 32 bits as grey of 8: Pillow alone would cut off all that is above 255."""
    whole = image.convert("F")
    low, high = cast("tuple[float, float]", whole.getextrema())
    if image.mode != "F" and low >= 0 and high <= _OF_16_BITS:
        low, high = 0.0, float(_OF_16_BITS)
    spread = 255 / (high - low) if high > low else 0.0
    return whole.point(lambda value: value * spread - low * spread).convert("L")


def _form(kind: str, image: "Image") -> str:
    if kind == "WEBP":
        return "WEBP"
    is_transparent = image.mode in {"RGBA", "LA"}
    return "PNG" if kind in _LOSSLESS or is_transparent else "JPEG"


def _encoded(image: "Image", form: str, profile: bytes | None) -> bytes:
    file = BytesIO()
    image.save(file, form, quality=QUALITY, icc_profile=profile, exif=b"")
    return file.getvalue()


def _said(error: Exception) -> str:
    return one_line(str(error)) or type(error).__name__

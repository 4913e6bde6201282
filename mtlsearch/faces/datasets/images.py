"""Photographs from elsewhere, whose size is known before they are decoded."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from mtlsearch.errors import InputError

MAX_PIXELS = 50_000_000
MAX_FILE_BYTES = 64 << 20


def load_image(path: Path, content: bytes | None = None, *, upright: bool = False) -> npt.NDArray[np.uint8]:
    """A JPEG or PNG file as (H, W, 3) uint8 RGB, its rows as they are stored (an EXIF orientation is not applied:
    annotations are in stored pixels).

    content: the file's bytes, where `path` only names them (a member of an archive); upright: apply the EXIF
    orientation after all, as a viewer would. 16-bit images are scaled to 8 bits. Raises InputError for a file that is
    missing, cut short or damaged, and, before anything is decoded, for one of more than MAX_PIXELS pixels.
    """
    try:
        if content is None:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise InputError(f"{path} has more than {MAX_FILE_BYTES >> 20} MB, which no photograph here has")
            content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise InputError(f"{path} claims {width}×{height} pixels; at most {MAX_PIXELS:,} are read")
            shown = ImageOps.exif_transpose(image) if upright else image
            if shown.mode.startswith("I"):  # 16 bits of grey, which convert() would cut off at 255
                shown = Image.fromarray((np.asarray(shown) >> 8).astype(np.uint8))
            return np.asarray(shown.convert("RGB"))
    except UnidentifiedImageError:
        raise InputError(f"{path} is no JPEG or PNG image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path}: {error}") from None
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, SyntaxError, EOFError, MemoryError) as error:  # Pillow's parsers raise these on damage
        raise InputError(f"{path} is a damaged image ({error})") from error

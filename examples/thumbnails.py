"""Makes thumbnails of images. Needs Pillow: pip install pillow."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import msgspec
from msgspec import Meta
from PIL import Image, ImageOps


class Picture(msgspec.Struct):
    """The payload: which image to read, where its thumbnail goes, and the pixels of its longer side."""

    source: str
    destination: str
    size: Annotated[int, Meta(ge=16, le=2048)]


def thumbnail(picture: Picture) -> dict[str, str | int]:
    """Write the thumbnail, and return where it is and how large it came out."""
    destination = Path(picture.destination)
    with Image.open(picture.source) as image:
        image.thumbnail((picture.size, picture.size))
        ImageOps.exif_transpose(image, in_place=True)
        # Under its own name only when it is whole: a crash half way leaves no half thumbnail. The folder is
        # beside it, as a file can be moved in one step only within a file system.
        with TemporaryDirectory(dir=destination.parent) as folder:
            unfinished = Path(folder) / destination.name
            image.save(unfinished)
            unfinished.replace(destination)
        return {"path": str(destination), "width": image.width, "height": image.height}


# No retries: an image that cannot be read now cannot be read in a second either.
handlers = {"thumbnail": thumbnail}

"""Clips: conventions, reading, writing and sheets for people to look at. All video goes through PyAV."""

from longtake.video.clip import Clip, from_uint8, to_uint8
from longtake.video.images import read_image, write_image
from longtake.video.index import VideoIndex
from longtake.video.reading import VideoReader, read_clip
from longtake.video.sheets import contact_sheet, write_strip
from longtake.video.sound import Sound, read_sound
from longtake.video.writing import write_bytes, write_clip

__all__ = [
    "Clip",
    "Sound",
    "VideoIndex",
    "VideoReader",
    "contact_sheet",
    "from_uint8",
    "read_clip",
    "read_image",
    "read_sound",
    "to_uint8",
    "write_bytes",
    "write_clip",
    "write_image",
    "write_strip",
]

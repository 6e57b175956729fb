"""Scenes as files: an mp4 of each clip, with all that is known about it as JSON beside it.

A folder::

    000000.mp4, 000000.json   the clip, with its sound if wanted, and its truth
    000000.npz                dense passes, if wanted: masks, depth, normals, flow
    metadata.jsonl            {"video", "prompt"} of every clip, which is what `VideoFolder` reads

The JSON of a clip is written last, so a clip that has one is whole, and an interrupted run goes on behind it.
"""

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from torch import Tensor

from longtake.data.scenes.rendering import render_scenes
from longtake.data.scenes.sampling import STARTER, SceneOptions, sample_scene
from longtake.data.scenes.sound import scene_sound, sound_events
from longtake.data.scenes.truth import Joints, Tracks, Truth, ground_truth
from longtake.data.scenes.world import FPS, Scene
from longtake.errors import BadData, BadInput, BadOutput
from longtake.video import Clip, write_bytes, write_clip

TABLE = "metadata.jsonl"
TABLE_EVERY = 250
"""Clips after which the table is written anew, so that an interrupted run leaves one."""


def render_folder(
    out: str | Path,
    count: int,
    options: SceneOptions = STARTER,
    *,
    first_seed: int = 0,
    frames: int = 17,
    height: int = 64,
    width: int = 64,
    fps: float = FPS,
    points: int = 64,
    dense: bool = False,
    sound: bool = False,
    crf: int = 10,
    progress: bool = True,
) -> Path:
    """Render clips with their ground truth into a folder; go on if some are there.

    The mp4 of an odd height or width has one row or column more than the truth, a copy of the last one.

    Args:
        out: the folder, made if missing (its parent must exist).
        count: clips; clip ``i`` is ``sample_scene(first_seed + i, options)``.
        options: what worlds are drawn.
        first_seed: seed of the first clip.
        frames: of every clip, at `fps` frames per second.
        height: rows of pixels.
        width: columns of pixels.
        fps: frames per second.
        points: point tracks in each clip, chosen in its first, middle and last frame.
        dense: also write masks, depth, normals and flow.
        sound: give the mp4 the scene's sound, and write its events as "sound" of the JSON (see `sound.SoundEvents`).
        crf: quality of the mp4, 0 (lossless) to 51.
        progress: show a bar.

    Returns:
        The path of ``metadata.jsonl``.

    Raises:
        BadData: the folder holds clips of other scenes or sizes.
        BadInput: a count below 1. BadSize: no frames, rows or columns. BadOutput: the folder cannot be written.
    """
    if count < 1:
        raise BadInput(f"cannot render {count} clips; ask for 1 or more.")
    out = Path(out)
    try:
        out.mkdir(exist_ok=True)
    except OSError as error:
        raise BadOutput(f"Cannot make the folder {out}: {error.strerror}.") from None
    queries = sorted({0, frames // 2, max(frames - 1, 0)})
    rows: list[dict[str, Any]] = []
    for index in track(range(count), "Rendering", disable=not progress):
        scene, name = sample_scene(first_seed + index, options), f"{index:06d}"
        rows.append({"video": f"{name}.mp4", "prompt": scene.caption})
        facts = {"scene": scene.to_json(), "frames": frames, "height": height, "width": width, "fps": fps}
        if not _is_whole(out, name, facts, dense, sound):
            pixels = render_scenes([scene], frames, height, width, fps=fps)
            truth = ground_truth([scene], frames, height, width, fps=fps, points=points, queries=queries)
            heard, told = None, {}
            if sound:
                heard = scene_sound(scene, frames, fps=fps)
                told = {"sound": asdict(sound_events(scene, frames, fps=fps))}
            write_clip(Clip(pixels, fps, sound=heard), out / f"{name}.mp4", crf=crf)
            if dense:
                write_bytes(out / f"{name}.npz", _dense(truth))
            write_bytes(out / f"{name}.json", json.dumps(describe(scene, truth) | told | facts).encode())
        if (index + 1) % TABLE_EVERY == 0 or index + 1 == count:
            write_bytes(out / TABLE, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return out / TABLE


def describe(scene: Scene, truth: Truth) -> dict[str, Any]:
    """All of a scene's truth that is not an image, as plain JSON data; `truth` is of this scene alone.

    Positions in pixels are (x, y) with pixel centres at half integers; lengths are in world units.
    """
    boxes = truth.boxes(0).tolist()  # (T, objects, 4)
    return {
        "seed": scene.seed,
        "prompt": scene.caption,
        "captions": list(scene.captions),
        "attributes": scene.attributes,
        "camera": {
            "intrinsics": _numbers(truth.intrinsics[0]),  # pixels, (3, 3)
            "extrinsics": _numbers(truth.extrinsics[0]),  # world to camera, (T, 4, 4)
        },
        "objects": [
            {
                **named,
                # left, top, right, bottom of what is visible in each frame, or null
                "boxes": [None if frame[number][0] < 0 else frame[number] for frame in boxes],
                "joints": _joints(truth.joints[0][number]),
            }
            for number, named in enumerate(scene.attributes["objects"])
        ],
        "tracks": _tracks(truth.tracks[0]),
    }


def _joints(joints: Joints | None) -> dict[str, Any] | None:
    if joints is None:
        return None
    return {
        "names": list(joints.names),
        "world": _numbers(joints.world),  # (T, J, 3)
        "pixels": _numbers(joints.pixels),  # (T, J, 2)
        "depth": _numbers(joints.depth),
    }


def _tracks(tracks: Tracks) -> dict[str, Any]:
    return {
        "pixels": _numbers(tracks.pixels),  # (T, N, 2)
        "depth": _numbers(tracks.depth),
        "world": _numbers(tracks.world),
        "visible": tracks.visible.int().tolist(),
        "query": tracks.query.tolist(),
        "object": (tracks.instance - 1).tolist(),  # counted from 0, as in "objects"
        "part": tracks.part.tolist(),
    }


def _numbers(values: Tensor) -> list[Any]:
    return np.round(values.double().cpu().numpy(), 4).tolist()


def _dense(truth: Truth) -> bytes:
    arrays = {
        "instances": truth.instances[0].numpy(),
        "parts": truth.parts[0].numpy(),
        "depth": truth.depth[0].numpy(),
        "normals": truth.normals[0].half().numpy(),
        "flow": truth.flow[0].numpy(),
        "covisible": truth.covisible[0].numpy(),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _is_whole(out: Path, name: str, facts: dict[str, Any], dense: bool, sound: bool) -> bool:
    """Whether a clip is there with all its files, and its sound if wanted. A clip of another scene or size is refused."""
    try:
        stored = json.loads((out / f"{name}.json").read_bytes())
        differs = [key for key, value in facts.items() if stored[key] != json.loads(json.dumps(value))]
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadData(f"{out / name}.json is not the truth of a clip ({error!r}): delete it.") from None
    if differs:
        raise BadData(f"{out / name}.json is of another {differs[0]}: choose another folder, or delete this one.")
    if sound and "sound" not in stored:
        return False
    return all((out / f"{name}.{suffix}").exists() for suffix in (("mp4", "npz") if dense else ("mp4",)))

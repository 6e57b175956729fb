"""Captions for scenes: one plain sentence and several paraphrases, and the canonical attribute string.

A paraphrase changes words, not facts. Some leave out the background or the direction of a movement, so that a model
trained on them accepts prompts that do so too.
"""

NOUNS = {
    "ball": ("ball", "sphere"),
    "cube": ("cube", "box"),
    "cylinder": ("cylinder", "drum"),
    "cone": ("cone",),
    "capsule": ("capsule", "pill"),
    "figure": ("figure", "person"),
}
VERBS = {
    "still": ("stands still", "does not move", "rests"),
    "slide-left": ("slides to the left", "glides left", "slides left"),
    "slide-right": ("slides to the right", "glides right", "slides right"),
    "roll-left": ("rolls to the left", "rolls left"),
    "roll-right": ("rolls to the right", "rolls right"),
    "bounce": ("bounces", "bounces up and down", "hops up and down"),
    "fall": ("falls down", "falls to the floor", "drops from above"),
    "orbit": ("moves in a circle", "circles around", "travels in a circle"),
    "spin": ("spins", "spins in place", "turns around itself"),
    "grow": ("grows", "gets bigger", "becomes larger"),
    "shrink": ("shrinks", "gets smaller", "becomes smaller"),
    "walk-left": ("walks to the left", "walks left"),
    "walk-right": ("walks to the right", "walks right"),
    "wave": ("waves", "waves a hand"),
    "jump": ("jumps", "jumps up and down"),
}
PLAIN_VERBS = {"slide": ("slides", "glides"), "roll": ("rolls",), "walk": ("walks",)}
CAMERA_PHRASES = {
    "pan-left": ("while the camera pans left", "camera panning left"),
    "pan-right": ("while the camera pans right", "camera panning right"),
    "tilt-up": ("while the camera tilts up", "camera tilting up"),
    "tilt-down": ("while the camera tilts down", "camera tilting down"),
    "dolly-in": ("while the camera moves in", "camera moving closer"),
    "dolly-out": ("while the camera moves out", "camera moving away"),
    "orbit-left": ("while the camera orbits left", "camera orbiting left"),
    "orbit-right": ("while the camera orbits right", "camera orbiting right"),
}


def write_captions(attributes: dict) -> tuple[str, ...]:
    """Return the plain caption and its paraphrases for `Scene.attributes`; deterministic, at least four, no repeats."""
    captions = [_sentence(attributes, style) for style in range(4)]
    captions += [_sentence(attributes, style, background=False) for style in range(2)]
    if any(thing["motion"].partition("-")[0] in PLAIN_VERBS for thing in attributes["objects"]):
        captions.append(_sentence(attributes, 0, direction=False))
    return tuple(dict.fromkeys(captions))


def canonical(attributes: dict) -> str:
    """Return all attributes as one short string with a fixed order, the target that the text encoder learns from."""
    things = [f"{thing['colour']} {thing['shape']} {thing['motion']}" for thing in attributes["objects"]]
    backdrop = attributes["background_colour"] or "none"
    return " ; ".join([*things, attributes["relation"], f"{attributes['background']} {backdrop}", attributes["camera"]])


def _sentence(attributes: dict, style: int, *, background: bool = True, direction: bool = True) -> str:
    things = [_thing(thing, style) for thing in attributes["objects"]]
    verbs = [_verb(thing["motion"], style, direction) for thing in attributes["objects"]]
    relation = attributes["relation"]
    if relation == "behind":
        text = f"{things[0]} {_way(verbs[0], 'behind')} {things[1]}"
    elif relation == "collide":
        text = f"{things[0]} {_way(verbs[0], 'into')} {things[1]}"
    elif relation == "beside" and style % 2:
        text = f"{things[0]} that {verbs[0]} beside {things[1]} that {verbs[1]}"
    else:
        text = " and ".join(f"{thing} {verb}" for thing, verb in zip(things, verbs, strict=True))
    if background:
        text = _with_background(text, attributes, style)
    if attributes["camera"] != "static":
        options = CAMERA_PHRASES[attributes["camera"]]
        text = f"{text}, {options[style % len(options)]}"
    return text


def _thing(thing: dict, style: int) -> str:
    nouns = NOUNS[thing["shape"]]
    texture = f"{thing['texture']} " if thing["texture"] not in ("plain", "banded") else ""
    words = f"{thing['colour']} {texture}{nouns[(style // 2) % len(nouns)]}"
    return f"an {words}" if words[0] in "aeio" else f"a {words}"


def _verb(motion: str, style: int, direction: bool) -> str:
    if motion == "pushed":
        return "is pushed away"
    stem = motion.partition("-")[0]
    options = PLAIN_VERBS[stem] if not direction and stem in PLAIN_VERBS else VERBS[motion]
    return options[style % len(options)]


def _way(verb: str, preposition: str) -> str:
    for side in ("left", "right"):
        for phrase in (f" to the {side}", f" {side}"):
            if verb.endswith(phrase):
                return f"{verb.removesuffix(phrase)} {side} {preposition}"
    return f"{verb} {preposition}"


def _with_background(text: str, attributes: dict, style: int) -> str:
    kind, colour = attributes["background"], attributes["background_colour"]
    article = "an" if colour and colour[0] in "aeio" else "a"
    options = {
        "plain": (f"on a plain {colour} background", f"in front of {article} {colour} background"),
        "gradient": (f"on {article} {colour} gradient background", f"in front of {article} {colour} gradient"),
        "checker": ("on a checkered floor", "on a checkerboard floor"),
        "sky": ("under a cloudy sky", "under a blue sky with moving clouds"),
    }[kind]
    phrase = options[style % len(options)]
    return f"{phrase}, {text}" if style == 3 else f"{text} {phrase}"

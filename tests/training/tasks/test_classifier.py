import pytest
import torch
from PIL import Image

from longtake.errors import BadData, BadRecipe
from longtake.recognition.token_routing import TokenRoutingBackbone
from longtake.training.curves import read_curve
from longtake.training.launch import run
from longtake.training.parallel import World
from longtake.training.recipe import resolve
from longtake.training.tasks.classifier import ClassifierTask, build_classifier

WORLD = World(0, 1, torch.device("cpu"))
CONFIG = {
    "widths": [8, 8, 16, 16],
    "heads": [1, 1, 2, 2],
    "ratios": [2, 2, 2, 2],
    "reductions": [4, 2, 1, 1],
    "columns": 1,
}


def recipe(out=".", **changes):
    base = {
        "task": "classifier",
        "out": str(out),
        "steps": 20,
        "data": {
            "frames": 1, "height": 32, "width": 32, "count": 8, "held_out": 4, "batch_size": 4, "workers": 0,
            "options": {"relations": ["alone"]},
        },
        "classifier": {"config": CONFIG, "budget": 0.5},
        "optimizer": {"lr": 1e-2},
        "schedule": {"warmup": 1},
        "ema": {"decay": 0.5},
        "validation": {"every": 20},
        "samples": {"every": 20, "count": 1},
    }  # fmt: skip
    return resolve(base, changes)[0]


@pytest.fixture
def photos(tmp_path):
    """Sixteen images in two class folders: red ones and blue ones."""
    for name, colour in (("red things", (220, 30, 20)), ("blue", (20, 40, 210))):
        folder = tmp_path / "photos" / name / "deeper"
        folder.mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (40 + number, 36), tuple(c + number for c in colour)).save(folder / f"{number}.png")
    return {"kind": "images", "root": str(tmp_path / "photos"), "frames": 1}


def test_it_learns_a_users_folder_samples_and_exports(photos, tmp_path):
    result = run(recipe(tmp_path / "run", data=photos, steps=30))
    assert result.after["accuracy"] == 1.0
    network = TokenRoutingBackbone.from_pretrained(str(result.export), low_cpu_mem_usage=False).eval()
    assert tuple(network.config.classes) == ("blue", "red things")
    red = torch.tensor([0.75, -0.8, -0.85]).view(1, 3, 1, 1).expand(-1, -1, 32, 32)
    assert int(network(red).logits.argmax()) == 1
    assert (tmp_path / "run" / "samples" / "step-00000030.png").exists()


def test_the_budget_falls_along_the_training(tmp_path):
    run(recipe(tmp_path))
    rows = read_curve(tmp_path / "loss.csv")
    budgets = [float(row["budget"]) for row in rows]
    assert budgets[:2] == [1.0, 1.0]
    assert budgets[5] == pytest.approx(1 - 0.5 * (5 / 20 - 0.1) / 0.4)
    assert budgets[10:] == [0.5] * 10
    over = max(0.0, float(rows[-1]["share"]) - 0.5) ** 2
    assert float(rows[-1]["loss"]) == pytest.approx(float(rows[-1]["classes"]) + 10 * over, abs=1e-5)


def test_a_batch_is_the_mean_of_its_halves():
    """The gates of a sample come from its seed, whatever is beside it; so do shares of the cost."""
    task = ClassifierTask(recipe(), WORLD)
    train = task.data()[0][0]
    batch = {
        "pixels": torch.stack([train[i]["pixels"] for i in range(4)]),
        "label": [train[i]["label"] for i in range(4)],
    }
    task.network.requires_grad_(False).train()
    for node in task.network.nodes[:-1]:
        node.gate.logits.bias.zero_()
    _, whole = task.loss(batch, [1, 2, 3, 4])
    halves = [
        task.loss({"pixels": batch["pixels"][part], "label": batch["label"][part]}, seeds)[1]
        for part, seeds in ((slice(0, 2), [1, 2]), (slice(2, 4), [3, 4]))
    ]
    for name in ("classes", "share"):
        assert float(whole[name]) == pytest.approx(sum(float(half[name]) for half in halves) / 2, rel=1e-5)


def test_scenes_have_shapes_and_colours():
    task = ClassifierTask(recipe(data={"options": {"shapes": ["ball", "cube"], "colours": ["red", "blue"]}}), WORLD)
    assert task.names == ("red ball", "blue ball", "red cube", "blue cube")
    (train,), held_out = task.data()
    for item in [train[i] for i in range(8)] + [held_out[i] for i in range(4)]:
        assert task.names[item["label"]] == item["prompt"]
        assert item["pixels"].shape == (3, 1, 32, 32)
    scene = train.scenes.scene(0)
    assert train[0]["prompt"] == f"{scene.objects[0].garment.colour} {scene.objects[0].identity.shape}"


def test_mirrored_images_are_a_function_of_epoch_and_index(photos):
    task = ClassifierTask(recipe(data={**photos, "flip": 0.5}), WORLD)
    folder = task.data()[0][0].dataset
    folder.files = folder.files[:1]
    left_right = Image.new("RGB", (36, 36))
    left_right.paste((255, 255, 255), (0, 0, 18, 36))
    left_right.save(folder.files[0][0])
    bright = [float(folder[(epoch, 0)]["pixels"][0, 0, 0, 0]) for epoch in range(40)]
    assert bright == [float(folder[(epoch, 0)]["pixels"][0, 0, 0, 0]) for epoch in range(40)]
    assert 8 < sum(value > 0 for value in bright) < 32


def test_a_trained_one_goes_on_and_gets_another_head_for_other_classes(tmp_path):
    torch.manual_seed(0)
    trained = build_classifier(recipe().classifier, ("a", "b"))
    trained.save_pretrained(tmp_path)
    again = build_classifier(recipe(classifier={"config": {}}).classifier, ("a", "b"))
    asked = resolve({"task": "classifier", "classifier": {"init_from": str(tmp_path)}}, {})[0].classifier
    same, other = build_classifier(asked, ("a", "b")), build_classifier(asked, ("a", "b", "c"))
    assert torch.equal(same.head.weight, trained.head.weight)
    assert other.head.weight.shape[0] == 3
    assert torch.equal(other.embed.convolution.weight, trained.embed.convolution.weight)
    assert not torch.equal(again.embed.convolution.weight, trained.embed.convolution.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"height": 16}}, "at least 32"),
        ({"data": {"frames": 9}}, "use 1"),
        ({"data": {"kind": "videos", "root": "."}}, "scenes or on images"),
        ({"classifier": {"budget": 0.0}}, "above 0 to 1"),
        ({"classifier": {"config": {"colums": 2}}}, "Did you mean 'columns'"),
        ({"classifier": {"config": {"size": "nanno"}}}, "Did you mean 'nano'"),
        ({"classifier": {"config": {"heads": [3, 1, 2, 2]}}}, "do not divide"),
        ({"classifier": {"config": {"classes": ["a"]}}}, "the data brings them"),
        ({"classifier": {"init_from": "."}}, "leave out classifier.config"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(BadRecipe, match=message):
        ClassifierTask(recipe(**changes), WORLD)


def test_a_folder_without_classes_is_refused(tmp_path):
    (tmp_path / "one").mkdir()
    with pytest.raises(BadData, match="at least two"):
        ClassifierTask(recipe(data={"kind": "images", "root": str(tmp_path)}), WORLD)
    (tmp_path / "two").mkdir()
    with pytest.raises(BadData, match="holds no images"):
        ClassifierTask(recipe(data={"kind": "images", "root": str(tmp_path)}), WORLD).data()

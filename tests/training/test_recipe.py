import pytest

from longtake.errors import BadRecipe
from longtake.training.recipe import Recipe, check_arguments, load_recipe, resolve, to_yaml


def load(tmp_path, text, *overrides):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return load_recipe(path, overrides)


def test_defaults_file_and_overrides_in_that_order(tmp_path):
    (recipe,) = load(
        tmp_path,
        "steps: 7\ndata: {batch_size: 4, frames: 9}\noptimizer: {lr: 1e-2}",
        "data.batch_size=2",
        "data.root=some/clips",
        "backbone.config.width=64",
    )
    assert (recipe.steps, recipe.data.batch_size, recipe.data.frames) == (7, 2, 9)
    assert recipe.optimizer.lr == 0.01
    assert recipe.data.root == "some/clips"
    assert recipe.backbone.config == {"width": 64}
    assert recipe.ema.decay == Recipe().ema.decay


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        ("stepz: 7", [], ["stepz", "'steps'"]),
        ("data: {bach_size: 4}", [], ["data.bach_size", "'batch_size'"]),
        ("steps: 7", ["optimizer.lrr=1"], ["optimizer.lrr", "'lr'"]),
        ("steps: many", [], ["steps", "many"]),
        ("data: 3", [], ["data", "3"]),
        ("optimizer: {name: adam}", [], ["optimizer.name", "'adamw'"]),
        ("steps: -1", [], ["steps", "-1"]),
        ("data: {batch_size: 0}", [], ["data.batch_size", "0"]),
        ("steps: 7", ["steps"], ["steps", "key=value"]),
        ("- a\n- b", [], ["keys and values"]),
        ("steps: [", [], ["YAML"]),
        ("stages: {a: {stepz: 2}}", [], ["stages.a.stepz", "'steps'"]),
        ("stages: {first: {}}", ["stages.frist.steps=1"], ["frist", "'first'"]),
        ("stages: {a: {backbone: {init_from: 'stage:b'}}, b: {}}", [], ["stages.a", "stage:b"]),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line_that_names_the_key(tmp_path, text, overrides, words):
    with pytest.raises(BadRecipe) as caught:
        load(tmp_path, text, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadRecipe, match=r"nothing\.yaml"):
        load_recipe(tmp_path / "nothing.yaml")


def test_stages_are_the_recipe_with_their_keys_laid_over_it(tmp_path):
    text = """
    out: runs/chain
    seed: 5
    steps: 10
    data: {batch_size: 4}
    stages:
      tokenizer: {task: tokenizer, steps: 3}
      generator: {task: generator, tokenizer: {init_from: "stage:tokenizer"}}
    """
    tokenizer, generator = load(tmp_path, text, "data.batch_size=2", "stages.generator.seed=6")
    assert (tokenizer.task, tokenizer.steps, tokenizer.seed, tokenizer.out) == (
        "tokenizer",
        3,
        5,
        "runs/chain/tokenizer",
    )
    assert (generator.task, generator.steps, generator.seed, generator.out) == (
        "generator",
        10,
        6,
        "runs/chain/generator",
    )
    assert tokenizer.data.batch_size == generator.data.batch_size == 2
    assert generator.tokenizer.init_from == "runs/chain/tokenizer/export"
    assert load(tmp_path, text, "steps=1")[0].steps == 1  # what is given on the command line wins over stages too


def test_the_written_recipe_is_the_recipe(tmp_path):
    (recipe,) = resolve({"steps": 3, "samples": {"prompts": ["a: b", "c"]}}, {})
    assert load(tmp_path, to_yaml(recipe)) == [recipe]


def test_arguments_of_a_network_are_checked_by_its_signature():
    def network(width: int = 1, heads: int = 2) -> None: ...

    check_arguments(network, {"width": 3}, "backbone.config")
    with pytest.raises(BadRecipe, match=r"backbone\.config\.widht.*'width'"):
        check_arguments(network, {"widht": 3}, "backbone.config")

import math

from longtake.training.curves import Curve, draw_curves, read_curve

THIRD = 1 / 3


def rows(first, last):
    return [{"step": step, "loss": THIRD * step, "lr": 0.1} for step in range(first, last + 1)]


def test_numbers_come_back_bit_for_bit(tmp_path):
    Curve(tmp_path / "loss.csv", 0).add(rows(1, 3))
    assert read_curve(tmp_path / "loss.csv") == rows(1, 3)


def test_a_resumed_curve_loses_the_rows_behind_its_checkpoint_and_goes_on(tmp_path):
    path = tmp_path / "loss.csv"
    Curve(path, 0).add(rows(1, 5))
    with path.open("a") as file:
        file.write("6,0.4")  # the process died while it wrote
    again = Curve(path, 3)
    assert read_curve(path) == rows(1, 3)
    again.add(rows(4, 7))
    assert read_curve(path) == rows(1, 7)


def test_a_run_that_died_before_its_first_checkpoint_starts_over(tmp_path):
    path = tmp_path / "loss.csv"
    Curve(path, 0).add(rows(1, 5))
    Curve(path, 0).add(rows(1, 2))
    assert read_curve(path) == rows(1, 2)


def test_a_loss_with_other_parts_than_before_gets_columns_of_its_own(tmp_path):
    Curve(tmp_path / "loss.csv", 0).add([{"step": 1, "loss": 2.0, "kl": 0.5}])
    again = Curve(tmp_path / "loss.csv", 1)
    again.add([{"step": 2, "loss": 1.0, "gan": 0.25}])
    again.add([{"step": 3, "loss": 0.5, "gan": 0.125}])
    first, second, third = read_curve(tmp_path / "loss.csv")
    assert (first["kl"], second["gan"], third["gan"]) == (0.5, 0.25, 0.125)
    assert all(math.isnan(value) for value in (first["gan"], second["kl"], third["kl"]))


def test_curves_are_drawn_when_there_are_some(tmp_path):
    assert draw_curves(tmp_path) is None
    Curve(tmp_path / "loss.csv", 0).add([*rows(1, 40), {"step": 41, "loss": math.pi, "lr": 0.1}])
    Curve(tmp_path / "validation.csv", 0).add([{"step": 0, "loss": 1.0}, {"step": 40, "loss": 0.5}])
    picture = draw_curves(tmp_path)
    assert picture is not None
    assert picture.read_bytes().startswith(b"\x89PNG")

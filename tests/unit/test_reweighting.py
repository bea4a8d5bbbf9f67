"""Weights from files to files: what is written, when it is adopted, every reason to refuse, the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from drift_monitor.actions.process import ProcessError
from drift_monitor.actions.reweight import ReweightError, ReweightRequest, ReweightResult, run_reweight
from drift_monitor.actions.weights_manifest import WeightsManifest
from drift_monitor.cli import main
from drift_monitor.config.models import Monitor
from drift_monitor.core.errors import ConfigError, SchemaError
from drift_monitor.core.types import Window
from drift_monitor.core.weights import effective_sample_size
from drift_monitor.service.reweighting import perform_reweight, read_weights_manifest

START = datetime(2024, 3, 1, tzinfo=UTC)
WINDOW = Window(start=START, end=START + timedelta(days=1))
RIDGE = "sklearn.linear_model.Ridge"
BOOSTING = "sklearn.ensemble.HistGradientBoostingRegressor"


def rows(n: int, seed: int, *, shift: float = 0.0, live: bool = False, relation: float | None = None) -> pa.Table:
    """A label that is |x|; live rows have x moved by `shift`, and a label when a relation with z is given."""
    rng = np.random.default_rng(seed)
    x, z = rng.normal(shift, 1, n), rng.normal(size=n)
    start = START if live else START - timedelta(days=60)
    return pa.table(
        {
            "flight": [f"{seed}-{i}" for i in range(n)],
            "at": pa.array([start + timedelta(seconds=10 * i) for i in range(n)], pa.timestamp("us", "UTC")),
            "x": x,
            "z": z,
            "carrier": rng.choice(["UA", "AA", "DL"], n, p=[0.5, 0.3, 0.2]),
            "score": np.abs(x),
            "y": pa.array(
                np.abs(x) + (relation or 0.0) * z + 0.3 * rng.normal(size=n),
                mask=np.full(n, live and relation is None),
            ),
        }
    )


def monitor_of(folder: Path, **sections: Any) -> Monitor:
    plain = {
        "reference": str(folder / "training.parquet"),
        "source": {"path": str(folder / "live.parquet"), "timestamp": "at"},
        "schedule": {"every": "1d"},
        "columns": {"id": "flight", "prediction": "score", "label": "y"},
        "alarm": {"false_alerts_per_month": None},
        "quality": {"false_alerts_per_month": None, "disable": ["volume", "freshness"]},
        "reweight": {"method": "classifier", "learner": RIDGE},
    }
    return Monitor.model_validate_json(json.dumps({**plain, **sections}))


def performed(folder: Path, output: str = "out", **sections: Any) -> tuple[ReweightResult, WeightsManifest]:
    request = ReweightRequest(
        name="m",
        monitor=monitor_of(folder, **sections),
        state=folder / "state",
        window=WINDOW,
        output=folder / output,
    )
    result = perform_reweight(request)
    return result, read_weights_manifest(folder / output)


def prepared(folder: Path, training: pa.Table, live: pa.Table) -> Path:
    pq.write_table(training, folder / "training.parquet")
    pq.write_table(live, folder / "live.parquet")
    return folder


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Live rows with x moved by 0.8."""
    return prepared(tmp_path_factory.mktemp("shifted"), rows(1200, 1), rows(900, 2, shift=0.8, live=True))


@pytest.fixture(scope="module")
def made(shifted: Path) -> tuple[ReweightResult, WeightsManifest]:
    return performed(shifted)


# -- what is written -------------------------------------------------------------------------------------


def test_weights_stand_in_the_order_of_the_training_file_under_its_ids(
    shifted: Path, made: tuple[ReweightResult, WeightsManifest]
) -> None:
    result, _ = made
    assert result.path == shifted / "out" / "weights.parquet"
    table = pq.read_table(result.path)
    assert table.column_names == ["row_id", "weight"]
    assert table["row_id"].to_pylist() == pq.read_table(shifted / "training.parquet")["flight"].to_pylist()
    w = table["weight"].to_numpy()
    assert result.rows == len(w) == 1200
    assert result.effective_sample_size == pytest.approx(effective_sample_size(w))
    assert 0 <= w.min() <= w.max() < 100


def test_the_weighted_mean_of_what_moved_is_the_live_one(
    shifted: Path, made: tuple[ReweightResult, WeightsManifest]
) -> None:
    w = pq.read_table(shifted / "out" / "weights.parquet")["weight"].to_numpy()
    training, live = (pq.read_table(shifted / f"{name}.parquet")["x"].to_numpy() for name in ("training", "live"))
    assert w @ training / w.sum() == pytest.approx(live.mean(), abs=0.1)
    balance = {each.feature: each for each in made[1].balance}
    assert balance["x"].before == pytest.approx((training.mean() - live.mean()) / 1.0, rel=0.06)
    assert abs(balance["x"].after) < 0.1


def test_weights_that_help_are_adopted_and_it_is_said_how_much(
    made: tuple[ReweightResult, WeightsManifest],
) -> None:
    result, manifest = made
    assert result.adopt
    assert result.refused == ()
    assert manifest.gate is not None
    assert [(trial.basis, trial.helps) for trial in manifest.gate.trials] == [("cross-validation", True)]
    assert manifest.gate.task == "regression"
    assert result.why.startswith("the weights lower the squared error of sklearn.linear_model.Ridge by")
    assert "in importance-weighted cross-validation on 1,200 training rows" in result.why
    assert manifest.inputs is not None
    assert manifest.inputs.labelled == 0


def test_labelled_live_rows_decide_where_there_are_enough(tmp_path: Path) -> None:
    live = rows(900, 24, shift=0.8, live=True, relation=0.0)
    known = np.arange(900) % 3 == 0
    y = live.column_names.index("y")
    prepared(tmp_path, rows(1200, 23), live.set_column(y, "y", pa.array(live["y"].to_numpy(), mask=~known)))
    result, manifest = performed(tmp_path)
    assert result.adopt
    assert "on 300 labelled live rows" in result.why
    assert manifest.gate is not None
    assert [trial.basis for trial in manifest.gate.trials] == ["cross-validation", "live labels"]
    assert manifest.inputs is not None
    assert manifest.inputs.labelled == 300


def test_the_manifest_names_inputs_outputs_and_what_the_weights_do(
    shifted: Path, made: tuple[ReweightResult, WeightsManifest]
) -> None:
    result, manifest = made
    inputs, found = manifest.inputs, manifest.diagnostics
    assert inputs is not None
    assert found is not None
    assert (inputs.row_id, inputs.live_rows, inputs.window) == ("flight", 900, WINDOW)
    assert [file.name for file in inputs.training] == ["training.parquet"]
    assert {file.name for file in manifest.files} == {"weights.parquet", "weights.svg", "USE.txt"}
    assert result.sha256 == next(f.sha256 for f in manifest.files if f.name == "weights.parquet")
    w = pq.read_table(shifted / "out" / "weights.parquet")["weight"].to_numpy()
    assert found.mean == pytest.approx(w.mean())
    assert found.design_effect == pytest.approx(len(w) / effective_sample_size(w))
    assert found.skew == pytest.approx(w.max() / w.mean())
    assert found.auc == pytest.approx(0.714, abs=0.03)  # Phi(0.8 / sqrt(2)), of normals 0.8 apart
    assert found.auc_after == pytest.approx(0.5, abs=0.03)
    assert {"drift-monitor", "scikit-learn", "numpy"} <= set(manifest.packages)


def test_ids_times_the_label_and_the_models_output_are_not_what_weights_depend_on(
    made: tuple[ReweightResult, WeightsManifest],
) -> None:
    assert made[1].features == ("x", "z", "carrier")
    assert "the model's output" in made[1].left_out["score"]


def test_the_verdict_is_drawn_again_with_the_weights(made: tuple[ReweightResult, WeightsManifest]) -> None:
    again = made[1].again
    assert again is not None
    assert again.drift_before
    x = next(each for each in again.features if each.feature == "x")
    assert x.drifted
    assert x.effect == pytest.approx(0.311, abs=0.04)  # 2 Phi(0.4) - 1, the KS distance of normals 0.8 apart
    assert not x.drifted_after
    assert x.effect_after < 0.06


def test_the_picture_is_xml_and_names_every_feature(
    shifted: Path, made: tuple[ReweightResult, WeightsManifest]
) -> None:
    root = ET.parse(shifted / "out" / "weights.svg").getroot()
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"x", "z", "carrier"} <= set(texts)
    assert texts[4] == "x"  # after the title and the legend: the most shifted one first


def test_the_three_lines_work_as_they_stand(shifted: Path, made: tuple[ReweightResult, WeightsManifest]) -> None:
    code = (shifted / "out" / "USE.txt").read_text()
    program = (
        "import pandas as pd\nfrom sklearn.linear_model import Ridge\n"
        f"training = pd.read_parquet({str(shifted / 'training.parquet')!r})\n"
        f"features, model = ['x', 'z'], Ridge()\n{code}\nprint(round(model.coef_[0], 3))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=shifted / "out", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # by Stein's lemma the slope is the mean sign of x: 0 for a mean of 0, 2 Phi(0.8) - 1 = 0.576 for one of 0.8
    assert float(done.stdout) == pytest.approx(0.576, abs=0.1)


# -- the same again --------------------------------------------------------------------------------------


def test_the_same_files_and_seed_give_the_same_bytes(
    shifted: Path, made: tuple[ReweightResult, WeightsManifest]
) -> None:
    performed(shifted, "second")
    for name in ("weights.parquet", "weights.svg", "USE.txt", "manifest.json"):
        assert (shifted / "second" / name).read_bytes() == (shifted / "out" / name).read_bytes()
    assert not [p for p in (shifted / "second").iterdir() if p.name.startswith(".")]


def test_another_seed_gives_other_weights(shifted: Path, made: tuple[ReweightResult, WeightsManifest]) -> None:
    other, _ = performed(shifted, "seed", reweight={"method": "classifier", "learner": RIDGE, "seed": 1})
    assert other.sha256 != made[0].sha256


def test_live_rows_in_another_order_and_other_files_give_the_same_weights(
    shifted: Path, made: tuple[ReweightResult, WeightsManifest]
) -> None:
    live = pq.read_table(shifted / "live.parquet")
    parts = shifted / "parts"
    parts.mkdir()
    order = np.random.default_rng(0).permutation(live.num_rows)
    pq.write_table(live.take(pa.array(order[:400])), parts / "b.parquet")
    pq.write_table(live.take(pa.array(order[400:])), parts / "a.parquet")
    other, manifest = performed(shifted, "parts-out", source={"path": str(parts), "timestamp": "at"})
    assert other.sha256 == made[0].sha256
    assert manifest.inputs == made[1].inputs


def test_training_rows_in_several_files_are_numbered_through(
    tmp_path: Path, shifted: Path, made: tuple[ReweightResult, WeightsManifest]
) -> None:
    training = pq.read_table(shifted / "training.parquet")
    (tmp_path / "training").mkdir()
    for name, part in (("a", training[:900]), ("b", training[900:])):
        pq.write_table(part, tmp_path / "training" / f"{name}.parquet")
    result, manifest = performed(shifted, "several", training=str(tmp_path / "training"))
    assert result.sha256 == made[0].sha256
    assert manifest.inputs is not None
    assert [file.name for file in manifest.inputs.training] == ["a.parquet", "b.parquet"]


def test_without_an_id_rows_have_their_numbers_and_text_is_as_good_as_parquet(tmp_path: Path) -> None:
    training = rows(1000, 3).drop(["flight"])
    pq.write_table(training, tmp_path / "training.parquet")
    pacsv.write_csv(training, tmp_path / "rows.csv")
    pq.write_table(rows(800, 4, shift=0.6, live=True).drop(["flight"]), tmp_path / "live.parquet")
    columns = {"prediction": "score", "label": "y"}
    first, _ = performed(tmp_path, "a", columns=columns)
    second, manifest = performed(tmp_path, "b", columns=columns, training=str(tmp_path / "rows.csv"))
    table = pq.read_table(tmp_path / "b" / "weights.parquet")
    assert table["row_id"].to_pylist() == list(range(1000))
    np.testing.assert_allclose(
        table["weight"].to_numpy(),
        pq.read_table(tmp_path / "a" / "weights.parquet")["weight"].to_numpy(),
        rtol=1e-6,
    )
    assert first.adopt == second.adopt
    assert manifest.inputs is not None
    assert manifest.inputs.row_id == ""
    assert 'weight=weights["weight"].to_numpy()' in (tmp_path / "b" / "USE.txt").read_text()


# -- methods ---------------------------------------------------------------------------------------------


def test_raking_tells_the_factor_of_every_group(tmp_path: Path) -> None:
    training, live = rows(2500, 5), rows(2500, 6, live=True)
    carriers = np.random.default_rng(0).choice(["UA", "AA", "DL"], 2500, p=[0.2, 0.3, 0.5])
    live = live.set_column(live.column_names.index("carrier"), "carrier", pa.array(carriers))
    prepared(tmp_path, training, live)
    _, manifest = performed(tmp_path, reweight={"learner": RIDGE})
    assert manifest.method == "raking"  # auto: one feature drifted, and raking it is enough
    assert manifest.method_why == "only carrier drifted, and raking balances all 3 features"
    assert manifest.raked is not None
    by = {each.cell: each for each in manifest.raked.factors}
    shares = {name: np.mean(np.array(training["carrier"]) == name) for name in ("UA", "AA", "DL")}
    for name, share in shares.items():
        assert by[f"carrier={name}"].factor == pytest.approx(np.mean(carriers == name) / share)
    w = pq.read_table(tmp_path / "out" / "weights.parquet")["weight"].to_numpy()
    assert w.mean() == pytest.approx(1)
    assert len(np.unique(w.round(9))) == 3


def test_auto_says_why_it_took_the_classifier(tmp_path: Path) -> None:
    training, live = rows(1000, 7), rows(800, 8, shift=1.0, live=True)
    live = live.set_column(live.column_names.index("z"), "z", pa.array(live["x"].to_numpy() + 0.3))
    prepared(tmp_path, training, live)
    _, manifest = performed(tmp_path, reweight={"learner": RIDGE})
    assert manifest.method == "classifier"
    assert manifest.method_why.startswith("raking z, x leaves") or manifest.method_why.startswith(
        "raking x, z leaves"
    )


def test_raking_needs_columns_that_are_features(shifted: Path) -> None:
    with pytest.raises(ConfigError, match=r"m\.reweight\.columns: 'y' is no feature that weights can depend on"):
        performed(shifted, "x", reweight={"method": "raking", "columns": ["y"]})
    assert list((shifted / "x").iterdir()) == []


# -- reasons not to use them -----------------------------------------------------------------------------


def test_a_flexible_learner_is_told_that_weights_would_not_help(shifted: Path) -> None:
    result, manifest = performed(shifted, "flexible", reweight={"method": "classifier", "learner": BOOSTING})
    assert not result.adopt
    assert result.refused == ()
    assert "would" in result.why
    assert "help" in result.why
    assert manifest.gate is not None
    assert not manifest.gate.trials[-1].helps


def test_without_a_label_nothing_is_adopted(shifted: Path) -> None:
    result, manifest = performed(
        shifted, "unlabelled", columns={"id": "flight", "prediction": "score", "ignore": ["y"]}
    )
    assert not result.adopt
    assert result.why.startswith("whether the weights help cannot be tried, because columns.label is not set")
    assert manifest.gate is not None
    assert manifest.gate.trials == ()


def test_live_rows_that_training_rows_cannot_stand_for_are_refused(tmp_path: Path) -> None:
    prepared(tmp_path, rows(1500, 9), rows(900, 10, shift=3.0, live=True))
    result, manifest = performed(tmp_path)
    assert not result.adopt
    said = " ".join(result.refused)
    assert "still unlike the live ones: 'x' is" in said
    assert "effective rows of 1,500, 200 are needed" in said
    assert "of the live rows lie outside what the training data has (most by x)" in said
    assert manifest.diagnostics is not None
    assert manifest.diagnostics.outside == pytest.approx(0.4, abs=0.2)


def test_a_category_that_training_never_saw_is_outside(tmp_path: Path) -> None:
    live = rows(1200, 12, live=True)
    carriers = live["carrier"].to_pylist()
    carriers[:60] = ["new"] * 60
    prepared(tmp_path, rows(1000, 11), live.set_column(4, "carrier", pa.array(carriers)))
    result, manifest = performed(tmp_path, quality={"disable": ["unseen", "volume", "freshness"]})
    assert manifest.diagnostics is not None
    assert manifest.diagnostics.outside_by["carrier"] == pytest.approx(0.05)
    assert [why for why in result.refused if "most by carrier" in why]


def test_a_change_of_the_relation_is_refused(tmp_path: Path) -> None:
    prepared(tmp_path, rows(1200, 13), rows(900, 14, shift=0.4, live=True, relation=1.0))
    result, manifest = performed(tmp_path)
    assert not result.adopt
    assert len(result.refused) == 1
    assert "what the label does at equal features has changed: on 900 labelled live rows" in result.refused[0]
    assert "along z" in result.refused[0]
    assert manifest.gate is not None
    assert manifest.gate.relation_where == "z"


def test_broken_data_gets_no_weights_and_what_was_there_before_goes(tmp_path: Path) -> None:
    live = rows(800, 16, shift=0.5, live=True)
    folder = prepared(tmp_path, rows(1000, 15), live)
    assert performed(folder)[0].path is not None
    x = live["x"].to_pylist()
    x[:400] = [None] * 400
    pq.write_table(live.set_column(2, "x", pa.array(x)), folder / "live.parquet")
    result, manifest = performed(folder)
    assert result.path is None
    assert result.method == "none"
    assert not result.adopt
    assert "the window's data is broken" in result.refused[0]
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["manifest.json"]
    assert manifest.refused == result.refused


def test_a_window_with_too_few_rows_gets_no_weights(tmp_path: Path) -> None:
    prepared(tmp_path, rows(1000, 17), rows(50, 18, live=True))
    result, _ = performed(tmp_path)
    assert result.path is None
    assert result.refused[0].startswith("the window could not be judged: insufficient data: 50 rows")


# -- hostile columns -------------------------------------------------------------------------------------


def test_hostile_names_and_columns_do_no_harm(tmp_path: Path) -> None:
    name = "</text><script>alert(1)</script>\x07é"

    def with_more(table: pa.Table, seed: int) -> pa.Table:
        rng = np.random.default_rng(seed)
        n = table.num_rows
        texts = rng.choice(["<b>&\"'", "x" * 5000, "日本", ""], n)
        numbers = rng.normal(size=n)
        numbers[:5] = [np.inf, -np.inf, np.nan, 1e308, -1e308]
        half = pa.array(numbers, mask=rng.random(n) < 0.5)
        more = {
            name: pa.array(texts),
            "inf": pa.array(numbers),
            "half": half,
            "null": pa.nulls(n),
            "nan": pa.array(np.full(n, np.nan)),
            "one": pa.array(["same"] * n),
            "flag": pa.array(rng.random(n) < 0.5),
            "when": table["at"],
            "list": pa.array([[1]] * n),
        }
        return pa.table({**{c: table[c] for c in table.column_names}, **more})

    training, live = with_more(rows(1200, 19), 1), with_more(rows(900, 20, shift=0.5, live=True), 2)
    prepared(tmp_path, training, live)
    disabled = ["constant", "null_rate", "out_of_range", "unseen", "volume", "freshness"]
    result, manifest = performed(tmp_path, quality={"disable": disabled})
    assert result.path is not None
    w = pq.read_table(result.path)["weight"].to_numpy()
    assert np.isfinite(w).all()
    assert name in manifest.features
    assert "a time tells any two periods apart" in manifest.left_out["when"]
    picture = (tmp_path / "out" / "weights.svg").read_text()
    assert "<script" not in picture
    ET.fromstring(picture)


# -- errors ----------------------------------------------------------------------------------------------


def test_a_reference_folder_needs_the_training_file_named(shifted: Path, made: object) -> None:
    versions = shifted / "state" / "references" / "m"
    with pytest.raises(ConfigError, match=r"monitors\.m\.training: name the file"):
        performed(shifted, "x", reference=str(versions))


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        ("sklearn.linear_model.Nonsense", "cannot be imported and called without arguments"),
        ("no_such_package.Model", "cannot be imported and called without arguments"),
        ("sklearn.preprocessing.StandardScaler", "no classifier and no regressor"),
        ("sklearn.neighbors.KNeighborsRegressor", "takes no sample_weight"),
    ],
)
def test_a_learner_that_cannot_be_used_is_an_error_of_the_configuration(
    shifted: Path, learner: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"monitors.m.reweight.learner: '{learner}'.*{message}"):
        performed(shifted, "bad", reweight={"learner": learner})


def test_a_training_file_without_rows_is_an_error(tmp_path: Path, shifted: Path) -> None:
    pq.write_table(pq.read_table(shifted / "training.parquet")[:0], tmp_path / "none.parquet")
    with pytest.raises(SchemaError, match="the training file has no rows"):
        performed(shifted, "x", training=str(tmp_path / "none.parquet"))


def test_a_training_file_with_hardly_a_row_is_an_error(tmp_path: Path, shifted: Path) -> None:
    pq.write_table(pq.read_table(shifted / "training.parquet")[:39], tmp_path / "few.parquet")
    with pytest.raises(ReweightError, match="the training file has 39 rows: 40 are needed"):
        performed(shifted, "x", training=str(tmp_path / "few.parquet"))


def test_a_window_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    prepared(tmp_path, rows(300, 21), rows(100, 22, live=True).drop(["at"]))
    with pytest.raises(ReweightError, match=r"the window of m could not be checked: .*'at'"):
        performed(tmp_path)


# -- the child and the command ---------------------------------------------------------------------------


def test_a_child_makes_the_same_weights(shifted: Path, made: tuple[ReweightResult, WeightsManifest]) -> None:
    request = ReweightRequest(
        name="m", monitor=monitor_of(shifted), state=shifted / "state", window=WINDOW, output=shifted / "child"
    )
    result = run_reweight(request, timedelta(minutes=4))
    assert result == made[0].model_copy(
        update={"path": shifted / "child" / "weights.parquet", "manifest": shifted / "child" / "manifest.json"}
    )
    bad = request.model_copy(update={"monitor": monitor_of(shifted, training="/no/such/file.parquet")})
    with pytest.raises(ProcessError, match=r"the weighting of m failed: .*no/such/file\.parquet"):
        run_reweight(bad, timedelta(minutes=4))


@pytest.fixture
def command(shifted: Path) -> Callable[..., int]:
    monitor = json.loads(monitor_of(shifted).model_dump_json(exclude_defaults=True))
    path = shifted / "config.json"
    path.write_text(json.dumps({"state": str(shifted / "state"), "monitors": {"m": monitor}}))
    window = "2024-03-01/2024-03-02"

    def run(*arguments: str) -> int:
        return main(["reweight", "--config", os.fspath(path), "--window", window, *arguments])

    return run


def test_the_command_shows_it_all_and_exits_with_0_when_the_weights_help(
    command: Callable[..., int], shifted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--output", str(shifted / "cli")) == 0
    said = capsys.readouterr().out
    for part in (
        "adopt  m",
        "effective sample size",
        "largest difference left",
        "gate: sklearn.linear_model.Ridge",
        "training rows, cross-validated",
        "with weights     ok:",
        "sample_weight=rows",
        "without score: the model's output",
    ):
        assert part in said


def test_the_command_tells_not_adopted_refused_and_wrong_apart(
    command: Callable[..., int], shifted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--learner", BOOSTING, "--output", str(shifted / "cli")) == 2
    assert "not adopted  m" in capsys.readouterr().out
    # raking a column that has nothing to do with the shift leaves x as it was
    raked = ("--method", "raking", "--columns", "carrier, z", "--json", "--output", str(shifted / "cli"))
    assert command(*raked) == 3
    said = json.loads(capsys.readouterr().out)
    assert said["path"] == str(shifted / "cli")
    assert said["raked"]["columns"] == ["carrier", "z"]
    assert "still unlike the live ones" in said["refused"][0]
    assert command("--learner", "not a path") == 64
    assert command("--learner", "sklearn.linear_model.Nonsense") == 78

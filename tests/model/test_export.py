"""Training sets in other libraries' hands: the real PyTorch, TensorFlow, pandas and Arrow."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fs_notebook.errors import IntegrityError, UnknownName, UsageError
from fs_notebook.model.encoder import FeatureEncoder
from fs_notebook.model.pieces import ABOUT, TrainingPieces, read_pieces
from fs_notebook.model.training import TrainingSet

ROWS = 1_000


@pytest.fixture(scope="module")
def training() -> TrainingSet:
    rng = np.random.default_rng(7)
    total = rng.normal(50, 20, ROWS)
    frame = pl.DataFrame({
        "user": [f"u{n}" for n in range(ROWS)],
        "ts": [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=n) for n in range(ROWS)],
        "clicked": total + rng.normal(0, 5, ROWS) > 50,
        "kind": rng.choice(["view", "buy", "leave"], ROWS),
        "total": [None if n % 10 == 0 else x for n, x in enumerate(total)],
        "genre": rng.choice(["news", "sport"], ROWS),
        "last": [[int(x) for x in rng.integers(0, 9, n % 3)] for n in range(ROWS)],
    })  # fmt: skip
    return TrainingSet(
        frame=frame, label_columns=("user", "ts", "clicked", "kind"),
        features=("total", "genre", "last"), time="ts", keys=("user",), versions={"g": "f" * 64},
        cuts={}, first=None, last=None, events=0, seconds=0.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pieces(training: TrainingSet, tmp_path_factory: pytest.TempPathFactory) -> TrainingPieces:
    made = training.to_parquet(tmp_path_factory.mktemp("sets") / "train", rows=300)
    assert isinstance(made, TrainingPieces)
    return made


COLUMNS = ("total", "total is null", "genre=news", "genre=sport", "len(last)", "last[1]", "last[2]")


def test_frames_and_arrays(training: TrainingSet, tmp_path: Path) -> None:
    assert_frame_equal(training.to_polars(), training.frame)
    arrow = training.to_arrow()
    assert arrow.column_names == training.frame.columns
    assert_frame_equal(pl.DataFrame(arrow), training.frame)
    assert training.to_pandas()["total"].isna().sum() == ROWS // 10
    path = training.to_parquet(tmp_path / "train.parquet")
    assert_frame_equal(pl.read_parquet(tmp_path / "train.parquet"), training.frame)
    with pytest.raises(UsageError, match="something at"):
        training.to_parquet(tmp_path / "train.parquet")
    assert path == tmp_path / "train.parquet"
    assert [p.name for p in tmp_path.iterdir()] == ["train.parquet"]
    batches = list(training.batches(rows=300))
    assert [b.height for b in batches] == [300, 300, 300, 100]
    assert_frame_equal(pl.concat(batches), training.frame)
    values, clicked = training.to_numpy("clicked")
    assert values.shape == (ROWS, len(COLUMNS))
    assert tuple(training.encoder().get_feature_names_out()) == COLUMNS
    np.testing.assert_array_equal(clicked, training.frame["clicked"].cast(pl.Float32).to_numpy())
    np.testing.assert_array_equal(training.to_numpy(), values)


def test_pytorch_learns_of_it(training: TrainingSet) -> None:
    import torch

    encoder = make_pipeline(FeatureEncoder(["total", "genre", "last"]), StandardScaler())
    encoder.fit(training.frame)
    data = training.to_torch("clicked", encoder=encoder)
    assert isinstance(data, torch.utils.data.Dataset)
    assert (len(data), data.features) == (ROWS, COLUMNS)
    assert repr(data) == ("training tensors of 1,000 rows: float32 (1000, 7), float32 (1000,)")
    torch.manual_seed(0)
    model = torch.nn.Linear(len(data.features), 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(10):
        for values, truth in data.loader(batch_size=100, shuffle=True):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(values)[:, 0], truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    values, truth = data.tensors
    assert ((model(values)[:, 0] > 0) == (truth > 0.5)).float().mean() > 0.8
    # In the order of the labels, to the bit what the encoder says.
    np.testing.assert_array_equal(values.numpy(), encoder.transform(training).astype(np.float32))


def test_classes_are_numbers_and_values_fit_float32(training: TrainingSet) -> None:
    import torch

    data = training.to_torch("kind")
    assert (data.classes, data[0][1].dtype) == (("buy", "leave", "view"), torch.int64)
    found = [data.classes[int(n)] for n in data.tensors[1]]
    assert found == training.frame["kind"].to_list()
    (alone,) = training.to_torch()[0]
    assert alone.shape == (len(COLUMNS),)
    huge = training.frame.with_columns(total=pl.lit(1e300))
    assert torch.isfinite(TrainingSet.to_torch(_replaced(training, huge)).tensors[0]).all()
    with pytest.raises(UsageError, match=r"(?s)other classes than a, buy.*leave, view"):
        training.to_torch("kind", classes=["a", "buy"])
    with pytest.raises(UsageError, match="not known for 100 of 1,000 rows"):
        training.to_torch("total")
    with pytest.raises(UsageError, match="nothing to predict"):
        training.to_torch("ts")
    with pytest.raises(UnknownName, match="clicked"):
        training.to_torch("click")


def _replaced(training: TrainingSet, frame: pl.DataFrame) -> TrainingSet:
    from dataclasses import replace

    return replace(training, frame=frame)


def test_tensorflow_learns_of_it(training: TrainingSet) -> None:
    import tensorflow as tf

    encoder = make_pipeline(FeatureEncoder(["total", "genre", "last"]), StandardScaler())
    encoder.fit(training.frame)
    data = training.to_tf("clicked", encoder=encoder)
    assert isinstance(data, tf.data.Dataset)
    values, truth = next(iter(data.batch(ROWS)))
    np.testing.assert_array_equal(values.numpy(), encoder.transform(training).astype(np.float32))
    weights = tf.Variable(tf.zeros((len(COLUMNS), 1)))
    for values, truth in data.shuffle(ROWS, seed=1).batch(100).repeat(10):
        with tf.GradientTape() as tape:
            logits = tf.matmul(values, weights)[:, 0]
            loss = tf.reduce_mean(
                tf.nn.sigmoid_cross_entropy_with_logits(labels=truth, logits=logits)
            )
        weights.assign_sub(tape.gradient(loss, weights))
    values, truth = next(iter(data.batch(ROWS)))
    right = (tf.matmul(values, weights)[:, 0] > 0).numpy() == (truth.numpy() > 0.5)
    assert right.mean() > 0.8
    only = training.to_tf()
    assert (only.element_spec.shape, len(only)) == ((len(COLUMNS),), ROWS)


def test_pieces_are_the_set_a_batch_at_a_time(
    training: TrainingSet, pieces: TrainingPieces
) -> None:
    import tensorflow as tf
    import torch

    assert [piece.rows for piece in pieces.pieces] == [300, 300, 300, 100]
    assert (len(pieces), pieces.features) == (ROWS, training.features)
    batches = list(pieces.batches(rows=128))
    assert max(b.height for b in batches) == 128
    assert_frame_equal(pl.concat(batches), training.frame)
    encoder = pieces.encoder()
    assert tuple(encoder.get_feature_names_out()) == COLUMNS
    np.testing.assert_allclose(encoder.transform(training), training.to_numpy(), rtol=1e-12)
    expected = encoder.transform(training).astype(np.float32)
    stream = pieces.to_torch("kind", batch_size=70)
    assert isinstance(stream, torch.utils.data.IterableDataset)
    assert stream.classes == ("buy", "leave", "view")
    loaded = list(stream.loader())
    assert max(len(v) for v, _ in loaded) == 70
    np.testing.assert_array_equal(np.concatenate([v.numpy() for v, _ in loaded]), expected)
    assert {y.dtype for _, y in loaded} == {torch.int64}
    tensors = pieces.to_tf("clicked", batch_size=70)
    assert isinstance(tensors, tf.data.Dataset)
    for _ in range(2):
        found = np.concatenate([v.numpy() for v, _ in tensors])
        np.testing.assert_array_equal(found, expected)
    assert pieces.to_tf().element_spec.shape == (None, len(COLUMNS))
    model = SGDClassifier(random_state=0, loss="log_loss")
    scaler = StandardScaler()
    for values, truth in pieces.arrays("clicked"):
        model.partial_fit(scaler.partial_fit(values).transform(values), truth, classes=[0, 1])
    assert model.score(scaler.transform(expected), training.frame["clicked"]) > 0.8
    assert "in 4 pieces: 1,000 labels × 3 features" in repr(pieces)
    assert "genre" in pieces._repr_html_()


def test_a_loader_s_workers_share_the_pieces(pieces: TrainingPieces) -> None:
    stream = pieces.to_torch("clicked", batch_size=1_000)
    loader = stream.loader(num_workers=2)
    assert loader.multiprocessing_context.get_start_method() == "spawn"
    assert sorted(len(values) for values, _ in loader) == [100, 300, 300, 300]


def test_half_a_set_is_none_and_a_damaged_piece_is_told(
    training: TrainingSet, tmp_path: Path
) -> None:
    made = training.to_parquet(tmp_path / "train", rows=400)
    assert isinstance(made, TrainingPieces)
    assert read_pieces(tmp_path / "train") == made
    with pytest.raises(UsageError, match="something at"):
        training.to_parquet(tmp_path / "train", rows=400)
    piece = tmp_path / "train" / made.pieces[1].file
    training.frame.head(10).write_parquet(piece)
    with pytest.raises(IntegrityError, match=r"(?s)not the one that was written.*10 rows"):
        list(made.batches())
    piece.write_bytes(b"PAR1")
    with pytest.raises(IntegrityError, match="cannot be read"):
        list(made.batches())
    about = tmp_path / "train" / ABOUT
    about.write_text(json.dumps({"rows": 1}))
    with pytest.raises(UsageError, match="holds no training set"):
        read_pieces(tmp_path / "train")
    about.unlink()
    with pytest.raises(UsageError, match=r"(?s)holds no training set.*rows=100_000"):
        read_pieces(tmp_path / "train")
    for odd in (0, -1):
        with pytest.raises(UsageError, match="one row at least"):
            list(training.batches(rows=odd))


@pytest.mark.parametrize(("call", "extra"), [("to_torch", "torch"), ("to_tf", "tensorflow")])
def test_a_framework_that_is_not_there_is_told(
    training: TrainingSet, monkeypatch: pytest.MonkeyPatch, call: str, extra: str
) -> None:
    import importlib

    def gone(name: str, *rest: Any) -> Any:
        if name == extra:
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest)

    real = importlib.import_module
    monkeypatch.setattr("fs_notebook.model.export.importlib.import_module", gone)
    with pytest.raises(UsageError, match=rf"(?s)is not installed.*fs-notebook\[{extra}\]"):
        getattr(training, call)()

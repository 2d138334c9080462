"""The two estimators together, on image files."""

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline

from skbridge import (
    BridgedGDAClassifier,
    CLIPEmbedder,
    SeMoBridgeClassifier,
    make_few_shot_pipeline,
)

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 230)}


@pytest.fixture(scope="module")
def model(tiny_clip_dir):
    return f"local-dir:{tiny_clip_dir}"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths and labels of twelve small files of noisy colours, PNG and JPEG."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths, labels = [], []
    for i in range(4):
        for name, colour in COLOURS.items():
            pixels = rng.normal(colour, 20, size=(40, 48, 3)).clip(0, 255)
            path = folder / f"{name}-{i}.{'png' if i % 2 else 'jpg'}"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            paths.append(path)
            labels.append(name)
    return paths, np.array(labels)


def test_pipeline_goes_from_files_to_labels(model, files):
    paths, labels = files
    pipeline = make_few_shot_pipeline(model, lambda_1=0)
    pipeline.fit(paths[:6], labels[:6])
    predicted = pipeline.predict(paths[6:])
    assert set(predicted) <= set(COLOURS)
    # Random weights tell colours apart, where the texts that they make are left out.
    textless = clone(pipeline).set_params(clf__texts=None, clf__lambda_1=1.0)
    assert textless.fit(paths[:6], labels[:6]).score(paths[6:], labels[6:]) > 0.5
    embeddings = CLIPEmbedder(model=model).transform(paths)
    alone = BridgedGDAClassifier(model, lambda_1=0)
    alone.fit(embeddings[:6], labels[:6])
    assert_allclose(
        pipeline.predict_proba(paths[6:]),
        alone.predict_proba(embeddings[6:]),
        rtol=1e-4,
    )


def test_grid_search_over_the_weights_in_two_processes(model, files):
    paths, labels = files
    search = GridSearchCV(
        Pipeline([("clip", CLIPEmbedder(model)), ("clf", SeMoBridgeClassifier(model))]),
        {"clf__lambda_1": [0, 1], "clf__lambda_2": [0, 1], "clf__lambda_3": [1]},
        cv=2,
        n_jobs=2,
        error_score="raise",
    )
    search.fit(paths, labels)
    assert search.cv_results_["mean_test_score"].shape == (4,)
    assert search.best_score_ > 0.5
    assert search.predict(paths).shape == (12,)


def test_cross_val_score_on_paths(model, files):
    scores = cross_val_score(
        make_few_shot_pipeline(model, lambda_1=0), *files, cv=2, error_score="raise"
    )
    assert scores.shape == (2,)


def test_saved_pipeline_holds_no_weights_and_predicts_the_same(model, files, tmp_path):
    paths, labels = files
    pipeline = make_few_shot_pipeline(model).fit(paths, labels)
    file = tmp_path / "pipeline.joblib"
    joblib.dump(pipeline, file)
    # The model's token embedding alone has 49,408 x 16 float32 numbers.
    assert file.stat().st_size < 100_000
    assert_array_equal(
        joblib.load(file).predict_proba(paths), pipeline.predict_proba(paths)
    )


def test_clone_of_the_pipeline_is_unfitted_and_alike(model, files):
    pipeline = make_few_shot_pipeline(model, lambda_3=0.5).fit(*files)
    copy = clone(pipeline)
    assert not hasattr(copy["clf"], "classes_")
    assert_array_equal(
        copy.fit(*files).predict_proba(files[0]), pipeline.predict_proba(files[0])
    )


def test_make_few_shot_pipeline_gives_both_steps_the_same_model():
    pipeline = make_few_shot_pipeline(
        "RN50", pretrained="openai", device="cpu", lambda_3=2.0
    )
    assert isinstance(pipeline, Pipeline)
    assert list(pipeline.named_steps) == ["clip", "clf"]
    for step in (pipeline["clip"], pipeline["clf"].texts):
        assert (step.model, step.pretrained, step.device) == ("RN50", "openai", "cpu")
    assert pipeline["clf"].lambda_3 == 2.0


def test_pandas_output_reaches_the_classifier_with_its_names(model, files):
    paths, labels = files
    pipeline = make_few_shot_pipeline(model)
    pipeline.set_output(transform="pandas")
    pipeline.fit(paths, labels)
    names = pipeline["clf"].feature_names_in_
    assert_array_equal(names, pipeline["clip"].get_feature_names_out())

"""Fixtures that several test modules share."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from hub_server import empty_hub as empty_hub
from hub_server import fake_hub as fake_hub

TINY_CONFIG = {
    "model_cfg": {
        "embed_dim": 24,
        "vision_cfg": {
            "image_size": 32,
            "layers": [1, 1, 1, 1],
            "width": 8,
            "patch_size": None,
        },
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
        },
    },
    "preprocess_cfg": {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
    },
}


@pytest.fixture(scope="session")
def tiny_clip_dir(tmp_path_factory):
    """Folder with a randomly initialised CLIP that open_clip itself made."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("tiny-clip")
    generator_state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = open_clip.model.CLIP(**TINY_CONFIG["model_cfg"])
    torch.random.set_rng_state(generator_state)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(TINY_CONFIG))
    return folder


@pytest.fixture(scope="session")
def load_benchmark():
    """Import a script of the folder `benchmarks` by its name."""
    folder = str(Path(__file__).parents[1] / "benchmarks")

    def load(name):
        sys.path.insert(0, folder)
        try:
            return importlib.import_module(name)
        finally:
            sys.path.remove(folder)

    return load

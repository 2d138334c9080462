"""Names, offline rules, QuickGELU and both towers of `skbridge._clip`."""

import copy
import dataclasses
import gzip
import hashlib
import json
import os
import pickle
import shutil
import socket
import threading
import time
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from hub_server import put_in_cache, set_hub_address
from PIL import Image
from safetensors.torch import load_file, save_file

from skbridge import CLIPEmbedder, TextHead
from skbridge._clip import checkpoint as _checkpoint
from skbridge._clip import hub as _hub
from skbridge._clip import load as _load
from skbridge._clip import open_clip as _clip
from skbridge._clip import weights as _weights
from skbridge._clip.load import load_clip, resolve_model
from skbridge._clip.open_clip import OpenCLIP
from skbridge._rows import unit

PROMPTS = ["a photo of a cat.", "a dog", "a photo of a very small hot air balloon."]

VISION = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
TEXT = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
CAPTIONS = {"context_length": 20, "vocab_size": 49408, "width": 16, "layers": 1}

pytestmark = pytest.mark.usefixtures("empty_hub")

# Every form of text tower that open_clip builds itself: model_cfg and the class.
ARCHITECTURES = {
    "vit": ({}, {}),
    "resnet": ({}, {"vision_cfg": {**VISION, "layers": [1, 1, 1, 1], "width": 8}}),
    "quickgelu": ({}, {"quick_gelu": True}),
    "bias in CLIP": ({"proj_bias": True}, {}),
    "custom text": ({}, {"custom_text": True}),
    "siglip": (
        {"proj_bias": True, "pool_type": "last", "no_causal_mask": True},
        {"custom_text": True, "init_logit_bias": -10.0},
    ),
    "no projection": ({"proj_type": "none", "width": 24}, {"custom_text": True}),
    "coca": (
        {"embed_cls": True, "output_tokens": True, "context_length": 19},
        {
            "custom_text": True,
            "multimodal_cfg": {**CAPTIONS, "heads": 2, "attn_pooler_heads": 2},
            "vision_cfg": {
                **VISION,
                "attentional_pool": True,
                "attn_pooler_heads": 2,
                "output_tokens": True,
            },
        },
    ),
}


def architecture(name):
    text, model = ARCHITECTURES[name]
    return {
        "embed_dim": 24,
        "vision_cfg": VISION,
        "text_cfg": {**TEXT, **text},
        **copy.deepcopy(model),
    }


def write_folder(folder, config):
    """Save a randomly initialised model the way that open_clip stores one."""
    folder.mkdir(parents=True, exist_ok=True)
    build = copy.deepcopy(config)
    custom_text = build.pop("custom_text", False)
    kind = open_clip.model.CustomTextCLIP if custom_text else open_clip.model.CLIP
    if "multimodal_cfg" in build:
        kind = open_clip.CoCa
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = kind(**build)
        for parameter in model.parameters():
            # Biases and the like start at zero, which would hide their omission.
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn(parameter.shape)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("architectures")
    return {
        name: write_folder(root / name.replace(" ", "-"), architecture(name))
        for name in ARCHITECTURES
    }


@pytest.fixture
def vit(folders):
    return load_clip(folders["vit"])


@pytest.fixture
def known_architecture(monkeypatch):
    """Enter "ViT-test-16" and its tag into open_clip's lists."""

    def enter(config, **tag):
        configs = {**open_clip.factory._MODEL_CONFIGS, "ViT-test-16": config}
        monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", configs)
        if tag:
            tag = open_clip.pretrained._pcfg(hf_hub="someone/vit-test/", **tag)
            tags = {"some_tag": tag}
            monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-test-16", tags)

    # Other tests enter the name with another configuration.
    monkeypatch.setattr(_load, "_LOADED", OrderedDict())
    return enter


# Names


@pytest.mark.parametrize(
    ("model", "pretrained", "tag", "slug"),
    [
        ("ViT-B-16", "auto", "openai", "vit_b_16"),
        ("ViT-B/16", "auto", "openai", "vit_b_16"),
        ("ViT-B-16", "laion2b_s34b_b88k", "laion2b_s34b_b88k", "vit_b_16"),
        ("ViT-B-16", "LAION2B-s34b-b88k", "laion2b_s34b_b88k", "vit_b_16"),
        ("ViT-H-14", "auto", "laion2b_s32b_b79k", "vit_h_14"),
        ("ViT-B-16-quickgelu", "openai", "openai", "vit_b_16_quickgelu"),
        ("convnext_base", "auto", "laion400m_s13b_b51k", "convnext_base"),
    ],
)
def test_named_models_resolve_to_a_tag(model, pretrained, tag, slug):
    spec = resolve_model(model, pretrained)
    name = model.replace("/", "-")
    assert (spec.name, spec.pretrained, spec.slug) == (name, tag, slug)
    assert spec.label == f"{name} ({tag})"


def test_every_model_name_gives_an_identifier_as_slug():
    names = open_clip.list_models()
    slugs = {_hub.slug(name) for name in names}
    assert len(slugs) == len(names)
    assert all(slug.isidentifier() for slug in slugs)
    assert _hub.slug("224-px model") == "clip_224_px_model"
    assert _hub.slug("模型") == "clip"


def test_folder_resolves_by_path(folders, monkeypatch):
    folder = folders["no projection"]
    spec = resolve_model(folder)
    assert spec.name == spec.folder == str(folder)
    assert (spec.label, spec.slug) == ("no-projection", "no_projection")
    monkeypatch.chdir(folder.parent)
    for model in (str(folder), folder.name, Path(folder.name), spec.name):
        assert resolve_model(model) == spec
    for path in (folder, folder.name, f"./{folder.name}/"):
        assert resolve_model(f"local-dir:{path}") == spec


@pytest.mark.parametrize("name", ["model.safetensors", "weights.safetensors"])
def test_safetensors_come_before_pickled_weights(tmp_path, folders, name):
    folder = shutil.copytree(folders["vit"], tmp_path / "model")
    (folder / "open_clip_model.safetensors").rename(folder / name)
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"not read")
    plain = load_clip(folders["vit"])
    np.testing.assert_array_equal(
        load_clip(folder).text_features(PROMPTS), plain.text_features(PROMPTS)
    )


def test_weights_of_transformers_in_the_same_folder_are_not_read(tmp_path, folders):
    folder = shutil.copytree(folders["vit"], tmp_path / "model")
    weights = folder / "open_clip_model.safetensors"
    torch.save(load_file(weights), folder / "open_clip_pytorch_model.bin")
    weights.unlink()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"not read")
    assert load_clip(folder).embed_dim == 24


def test_linked_folder_keeps_the_name_of_the_link(folders, tmp_path):
    (tmp_path / "latest").symlink_to(folders["vit"])
    assert resolve_model(tmp_path / "latest").label == "latest"


def test_checkpoint_file_resolves_by_path(tmp_path, monkeypatch):
    (tmp_path / "mine.pt").write_bytes(b"weights")
    spec = resolve_model("ViT-B-16", tmp_path / "mine.pt")
    assert spec.pretrained == str(tmp_path / "mine.pt")
    assert spec.label == "ViT-B-16 (mine.pt)"
    monkeypatch.chdir(tmp_path)
    assert resolve_model("ViT-B-16", "mine.pt") == spec


def test_unknown_model_names_near_ones():
    with pytest.raises(ValueError, match=r"Unknown model 'vit-b-16'.*'ViT-B-16'"):
        resolve_model("vit-b-16")
    with pytest.raises(ValueError, match=r"Did you mean 'skbridge-tiny'"):
        resolve_model("skbridge_tiny")
    with pytest.raises(ValueError, match=r"'qqq'. No known name resembles it"):
        resolve_model("qqq")


@pytest.mark.parametrize("model", [None, 3, "", ["ViT-B-16"]])
def test_model_of_another_type_is_refused(model):
    with pytest.raises(TypeError, match="model must be a non-empty string or path"):
        resolve_model(model)


def test_unknown_tag_lists_the_tags():
    with pytest.raises(ValueError, match=r"'opena' is neither .*: openai, laion400m"):
        resolve_model("ViT-B-16", "opena")


@pytest.mark.parametrize("pretrained", ["", None, 3, "auto"])
def test_architecture_without_weights_is_refused(pretrained):
    with pytest.raises(ValueError, match=r"ViT-S-16 .*lists none.*checkpoint"):
        resolve_model("ViT-S-16", pretrained)


def test_hub_name_without_repository_is_refused():
    with pytest.raises(ValueError, match="expected 'hf-hub:ORGANISATION/REPOSITORY'"):
        resolve_model("hf-hub:")


def test_model_with_own_weights_takes_no_tag(folders):
    for model in (folders["vit"], "hf-hub:someone/model"):
        assert resolve_model(model, None) == resolve_model(model, "auto")
        with pytest.raises(ValueError, match="brings its own weights"):
            resolve_model(model, "openai")


def test_incomplete_folder_is_refused(tmp_path, folders):
    with pytest.raises(FileNotFoundError, match=r"does not exist: .*nowhere"):
        resolve_model(f"local-dir:{tmp_path}/nowhere")
    with pytest.raises(
        FileNotFoundError, match=r"neither open_clip_config\.json nor config\.json"
    ):
        resolve_model(tmp_path)
    shutil.copy(folders["vit"] / "open_clip_config.json", tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        resolve_model(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_cfg": {"embed_dim": 3}}'])
def test_foreign_configuration_is_refused(tmp_path, folders, text):
    folder = shutil.copytree(folders["vit"], tmp_path / "model")
    (folder / "open_clip_config.json").write_text(text)
    with pytest.raises(ValueError, match="is not an open_clip configuration"):
        load_clip(folder)


def test_bundled_model_resolves_to_its_folder(monkeypatch, folders):
    monkeypatch.setattr(_weights, "_BUNDLED_FOLDER", folders["vit"])
    spec = resolve_model("skbridge-tiny")
    assert (spec.name, spec.label) == ("skbridge-tiny", "skbridge-tiny")
    assert (spec.slug, spec.folder) == ("skbridge_tiny", str(folders["vit"]))
    assert load_clip("skbridge-tiny").spec.name == "skbridge-tiny"


def test_missing_bundled_model_is_an_error_of_the_installation(monkeypatch, tmp_path):
    monkeypatch.setattr(_weights, "_BUNDLED_FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match="missing from this installation"):
        resolve_model("skbridge-tiny")


# Loading


def test_loaded_model_is_frozen_and_described(tiny_clip_dir):
    loaded = load_clip(tiny_clip_dir)
    assert not loaded.model.training
    assert not any(weight.requires_grad for weight in loaded.model.parameters())
    assert loaded.embed_dim == 24
    assert loaded.logit_scale == pytest.approx(1 / 0.07, rel=1e-6)
    assert loaded.device == "cpu"
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.device = "other"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(loaded)
    assert len(repr(loaded)) < 400


def test_model_is_loaded_once(folders):
    loaded = load_clip(folders["vit"])
    assert load_clip(f"local-dir:{folders['vit']}") is loaded
    assert load_clip(folders["custom text"]) is not loaded
    assert loaded.tokenizer is loaded.tokenizer


def test_threads_load_a_model_once(folders, monkeypatch):
    calls = []

    def slow_load(spec, device, load=OpenCLIP.load):
        calls.append(spec)
        time.sleep(0.05)
        return load(spec, device)

    monkeypatch.setattr(_load, "_LOADED", OrderedDict())
    monkeypatch.setattr(OpenCLIP, "load", slow_load)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(load_clip(folders["vit"])))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(found) == 4
    assert len({id(loaded) for loaded in found}) == 1


def test_changed_weights_are_loaded_afresh(tmp_path, folders):
    folder = shutil.copytree(folders["vit"], tmp_path / "model")
    before = load_clip(folder)
    state = load_file(folder / "open_clip_model.safetensors")
    state["logit_scale"] += 1
    save_file(state, folder / "open_clip_model.safetensors")
    os.utime(folder / "open_clip_model.safetensors", ns=(0, 1))
    after = load_clip(folder)
    assert after.logit_scale == pytest.approx(before.logit_scale * np.e, rel=1e-6)
    assert load_clip(folder) is after


def test_only_a_few_models_stay_in_memory(folders, monkeypatch):
    monkeypatch.setattr(_load, "_LOADED", OrderedDict())
    first, second = load_clip(folders["vit"]), load_clip(folders["resnet"])
    assert load_clip(folders["vit"]) is first
    for name in ("coca", "siglip", "custom text"):
        load_clip(folders[name])
    # The one used last stayed longer than the one loaded later.
    assert len(_load._LOADED) == 4
    assert load_clip(folders["vit"]) is first
    assert load_clip(folders["resnet"]) is not second


def test_loading_leaves_the_random_stream_alone(folders, monkeypatch):
    monkeypatch.setattr(_load, "_LOADED", OrderedDict())
    state = torch.random.get_rng_state()
    load_clip(folders["vit"])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_damaged_and_foreign_weights_are_refused(tmp_path, folders):
    folder = shutil.copytree(folders["vit"], tmp_path / "model")
    shutil.copy(folders["resnet"] / "open_clip_model.safetensors", folder)
    with pytest.raises(ValueError, match="weights of model could not be loaded"):
        load_clip(folder)
    (folder / "open_clip_model.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(ValueError, match="may be damaged"):
        load_clip(folder)
    shutil.copy(folders["vit"] / "open_clip_model.safetensors", folder)
    assert load_clip(folder).embed_dim == 24


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_half_precision_stays_close(folders, name, precision):
    loaded = load_clip(folders[name])
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    images = loaded.embed_scaled(batch, precision)
    assert images.dtype == torch.float32
    # Half precision has 8 or 11 bits, and a tower a dozen products in a row.
    atol = {"bf16": 0.08, "fp16": 0.01}[precision]
    expected = loaded.embed_scaled(batch)
    assert not torch.equal(images, expected)
    np.testing.assert_allclose(images, expected, atol=atol)


def test_full_precision_does_not_follow_the_caller(vit):
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = vit.embed_scaled(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(vit.embed_scaled(batch), expected)


# QuickGELU


def test_quick_gelu_follows_every_listed_tag(monkeypatch):
    monkeypatch.setattr(_weights, "_hub_weights", lambda spec, tag: "weights")
    forced = 0
    pairs = open_clip.list_pretrained()
    for model, tag in pairs:
        listed = open_clip.get_pretrained_cfg(model, tag)
        config = open_clip.get_model_config(model)
        options = _weights.weight_options(resolve_model(model, tag))
        # What open_clip makes of the option: it only ever switches on.
        built = config.get("quick_gelu", False) or options["force_quick_gelu"]
        assert built >= config.get("quick_gelu", False)
        assert built == listed.get("quick_gelu", False) or config["quick_gelu"]
        assert options["image_mean"] == listed["mean"]
        assert options["image_resize_mode"] == listed["resize_mode"]
        forced += built != config.get("quick_gelu", False)
    assert len(pairs) > 150
    assert forced >= 20


def activations(model):
    return {type(block.mlp.gelu) for block in model.transformer.resblocks}


@pytest.mark.parametrize("name", ["vit", "quickgelu"])
def test_folder_keeps_the_activation_of_its_configuration(folders, name):
    expected = open_clip.model.QuickGELU if name == "quickgelu" else torch.nn.GELU
    assert activations(load_clip(folders[name]).model) == {expected}


@pytest.mark.parametrize("in_config", [False, True])
@pytest.mark.parametrize("in_tag", [False, True])
def test_tag_switches_quick_gelu_on_and_never_off(
    folders, known_architecture, tmp_path, in_config, in_tag
):
    config = {**architecture("vit"), "quick_gelu": in_config}
    known_architecture(config, quick_gelu=in_tag, mean=(0.1, 0.2, 0.3))
    weights = folders["vit"] / "open_clip_model.safetensors"
    put_in_cache(tmp_path / "hub", "someone/vit-test", weights=weights)
    loaded = load_clip("ViT-test-16")
    quick = in_config or in_tag
    expected = open_clip.model.QuickGELU if quick else torch.nn.GELU
    assert activations(loaded.model) == {expected}
    assert loaded.label == "ViT-test-16 (some_tag)"
    # The preprocessing is the tag's too.
    assert loaded.preprocess.transforms[-1].mean == (0.1, 0.2, 0.3)


@pytest.fixture
def torchscript(tmp_path, folders, known_architecture):
    """A TorchScript file like OpenAI's."""
    plain = load_clip(folders["quickgelu"])
    known_architecture(architecture("vit"), quick_gelu=True, std=(0.1, 0.2, 0.3))
    inputs = (torch.zeros(1, 3, 32, 32), torch.zeros(1, 20, dtype=torch.int64))
    file = tmp_path / "script.pt"
    # As in OpenAI's files, the mask is no buffer, and three numbers are.
    model = copy.deepcopy(plain.model)
    mask = model.attn_mask
    del model.attn_mask, model.context_length, model.vocab_size
    model.attn_mask = mask
    for name, value in (("input_resolution", 32), ("context_length", 20)):
        model.register_buffer(name, torch.tensor(value))
    model.register_buffer("vocab_size", torch.tensor(49408))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model, inputs).save(str(file))
    return file


def test_torchscript_file_of_openai_is_read(torchscript, folders, monkeypatch):
    digest = hashlib.sha256(torchscript.read_bytes()).hexdigest()
    monkeypatch.setattr(_checkpoint, "_openai_digests", lambda: {digest})
    plain = load_clip(folders["quickgelu"])
    loaded = load_clip("ViT-test-16", torchscript)
    assert activations(loaded.model) == {open_clip.model.QuickGELU}
    assert loaded.preprocess.transforms[-1].std == (0.1, 0.2, 0.3)
    np.testing.assert_allclose(
        loaded.text_features(PROMPTS), plain.text_features(PROMPTS), atol=1e-6
    )


def test_torchscript_file_of_somebody_else_is_refused(torchscript):
    digest = hashlib.sha256(torchscript.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match="got a TorchScript archive") as caught:
        load_clip("ViT-test-16", torchscript)
    message = str(caught.value)
    assert "ViT-test-16 (script.pt)" in message
    assert digest in message
    assert "safetensors.torch.save_file" in message


def test_openai_digests_are_those_of_open_clip():
    digests = _checkpoint._openai_digests()
    for name in ("RN50", "ViT-B-16", "ViT-L-14-336"):
        url = open_clip.get_pretrained_url(name, "openai")
        assert any(f"/{digest}/" in url for digest in digests)


class Touch:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("member", [None, "x/constants.pkl", "constants.pkl"])
def test_no_code_of_a_checkpoint_file_runs(tmp_path, known_architecture, member):
    known_architecture(architecture("vit"))
    file, marker = tmp_path / "weights.pt", tmp_path / "marker"
    torch.save({"state_dict": Touch(marker)}, file)
    if member is not None:
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(f"weights/{member}", b"")
    with pytest.raises(ValueError, match="expected a file of tensors") as caught:
        load_clip("ViT-test-16", file)
    assert "safetensors.torch.save_file" in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert not marker.exists()


def test_no_code_of_a_model_folder_runs(tmp_path, folders):
    marker = tmp_path / "marker"
    folder = tmp_path / "model"
    folder.mkdir()
    config = folders["vit"] / "open_clip_config.json"
    shutil.copy(config, folder)
    torch.save({"state_dict": Touch(marker)}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(ValueError, match="expected a file of tensors"):
        load_clip(folder)
    assert not marker.exists()


def test_other_checkpoint_file_keeps_the_activation_of_its_name(
    tmp_path, folders, known_architecture
):
    known_architecture(architecture("vit"))
    plain = load_clip(folders["vit"])
    torch.save(plain.model.state_dict(), tmp_path / "state.pt")
    for file in (
        tmp_path / "state.pt",
        folders["vit"] / "open_clip_model.safetensors",
    ):
        loaded = load_clip("ViT-test-16", file)
        assert activations(loaded.model) == {torch.nn.GELU}
        np.testing.assert_array_equal(
            loaded.text_features(PROMPTS), plain.text_features(PROMPTS)
        )


# Offline


def test_unreachable_hub_fails_once_and_fast(monkeypatch):
    import huggingface_hub

    asked = []

    def ask(url, ask=huggingface_hub.get_hf_file_metadata, **options):
        asked.append(url)
        return ask(url, **options)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", ask)
    start = time.perf_counter()
    with pytest.raises(OSError, match="hub did not give them") as caught:
        load_clip("ViT-B-16")
    assert time.perf_counter() - start < 3
    assert len(asked) == 1
    message = str(caught.value)
    assert "ViT-B-16 (openai)" in message
    assert "local-dir:PATH" in message
    assert "model='skbridge-tiny'" in message


def test_silent_hub_is_given_up_on(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        set_hub_address(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "0.3")
        start = time.perf_counter()
        with pytest.raises(OSError, match=r"ViT-B-16 .*timed out"):
            load_clip("ViT-B-16")
        assert time.perf_counter() - start < 3


def test_offline_variable_forbids_asking(monkeypatch, fake_hub):
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="HF_HUB_OFFLINE is set"):
        load_clip("ViT-B-16")
    assert fake_hub[1] == []


def test_repository_without_weights_says_so(fake_hub):
    with pytest.raises(OSError, match=r"has no open_clip_model.safetensors or"):
        load_clip("ViT-B-16")
    # Once for each of the two names that weights may have.
    assert [method for method, _ in fake_hub[1]] == ["HEAD", "HEAD"]


def test_tag_is_downloaded_once_and_then_found_offline(
    folders, known_architecture, fake_hub, monkeypatch
):
    known_architecture(architecture("vit"), quick_gelu=False)
    files, requests = fake_hub
    weights = (folders["vit"] / "open_clip_model.safetensors").read_bytes()
    files["someone/vit-test/open_clip_model.safetensors"] = weights
    first = load_clip("ViT-test-16")
    assert ("GET", requests[-1][1]) in requests
    requests.clear()
    monkeypatch.setattr(_load, "_LOADED", OrderedDict())
    second = load_clip("ViT-test-16")
    assert requests == []
    np.testing.assert_array_equal(
        first.text_features(PROMPTS), second.text_features(PROMPTS)
    )


@pytest.mark.parametrize("filename", ["model.bin", "model.safetensors"])
def test_tag_with_a_file_name_takes_safetensors_first(
    folders, known_architecture, fake_hub, filename
):
    known_architecture(architecture("vit"), quick_gelu=False)
    tag = open_clip.pretrained._PRETRAINED["ViT-test-16"]["some_tag"]
    tag["hf_hub"] = "someone/vit-test/model.bin"
    plain = load_clip(folders["vit"])
    content = folders["vit"] / "open_clip_model.safetensors"
    if filename == "model.bin":
        content = folders["vit"].parent / "state.bin"
        torch.save(plain.model.state_dict(), content)
    files, requests = fake_hub
    files[f"someone/vit-test/{filename}"] = content.read_bytes()
    loaded = load_clip("ViT-test-16")
    assert requests[0][1].endswith("model.safetensors")
    np.testing.assert_array_equal(
        loaded.text_features(PROMPTS), plain.text_features(PROMPTS)
    )


def test_hub_model_is_downloaded_once_and_then_found_offline(
    folders, fake_hub, monkeypatch
):
    files, requests = fake_hub
    for path in folders["siglip"].iterdir():
        files[f"someone/sig/{path.name}"] = path.read_bytes()
    loaded = load_clip("hf-hub:someone/sig")
    assert (loaded.label, loaded.slug) == ("sig", "sig")
    monkeypatch.setattr(_load, "_LOADED", OrderedDict())
    requests.clear()
    again = load_clip("hf-hub:someone/sig")
    assert requests == []
    plain = load_clip(folders["siglip"])
    for one in (loaded, again):
        np.testing.assert_array_equal(
            one.text_features(PROMPTS), plain.text_features(PROMPTS)
        )


def test_hub_model_of_two_cached_revisions_is_read_from_one(
    folders, fake_hub, tmp_path
):
    # The configuration is cached, and the hub has moved on since.
    config = folders["vit"] / "open_clip_config.json"
    put_in_cache(tmp_path / "hub", "someone/new", config=config)
    for path in folders["siglip"].iterdir():
        fake_hub[0][f"someone/new/{path.name}"] = path.read_bytes()
    loaded = load_clip("hf-hub:someone/new")
    assert isinstance(loaded.model, open_clip.model.CustomTextCLIP)


# Towers


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_eos_and_projection_give_the_text_embedding(folders, name):
    loaded = load_clip(folders[name])
    eos, (projection, bias) = loaded.embed_texts(PROMPTS), loaded.projection
    tokens = loaded.tokenizer(PROMPTS)
    with torch.no_grad():
        expected = loaded.model.encode_text(tokens, normalize=False).numpy()
    assert projection.shape == (eos.shape[1], loaded.embed_dim)
    assert eos.dtype == projection.dtype == np.float32
    assert (bias is not None) == (name in ("bias in CLIP", "siglip"))
    product = eos @ projection + (0 if bias is None else bias)
    np.testing.assert_allclose(product, expected, atol=1e-5)
    np.testing.assert_array_equal(loaded.text_features(PROMPTS), expected)
    assert np.ptp(expected, axis=0).max() > 0.01


def test_tower_without_projection_has_the_identity(folders):
    projection, bias = load_clip(folders["no projection"]).projection
    np.testing.assert_array_equal(projection, np.eye(24))
    assert bias is None


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", ["vit", "custom text"])
def test_linear_layer_as_projection(folders, name, bias):
    loaded = load_clip(folders[name])
    model = copy.deepcopy(loaded.model)
    tower = model.text if name == "custom text" else model
    del tower.text_projection
    tower.text_projection = torch.nn.Linear(16, 24, bias=bias)
    loaded = dataclasses.replace(loaded, model=model)
    projection, found = loaded.projection
    assert (found is not None) == bias
    product = loaded.embed_texts(PROMPTS) @ projection + (found if bias else 0)
    np.testing.assert_allclose(product, loaded.text_features(PROMPTS), atol=1e-5)


class HuggingFaceTower(torch.nn.Module):
    """Shaped like open_clip's wrapper of transformers: no `text_projection`."""

    def __init__(self, projection):
        super().__init__()
        self.embedding = torch.nn.Embedding(49408, 16)
        self.proj = projection

    def forward(self, tokens):
        return self.proj(self.embedding(tokens).mean(axis=1))


@pytest.mark.parametrize(
    "projection", [torch.nn.Linear(16, 24, bias=False), torch.nn.Identity()]
)
def test_hugging_face_tower_with_linear_projection(folders, projection):
    loaded = load_clip(folders["custom text"])
    model = copy.deepcopy(loaded.model)
    model.text = HuggingFaceTower(projection)
    width = 24 if isinstance(projection, torch.nn.Linear) else 16
    loaded = dataclasses.replace(loaded, model=model, embed_dim=width)
    product = loaded.embed_texts(PROMPTS) @ loaded.projection[0]
    expected = model.encode_text(loaded.tokenizer(PROMPTS)).detach().numpy()
    np.testing.assert_allclose(product, expected, atol=1e-5)


def test_hugging_face_tower_with_mlp_is_refused(folders):
    loaded = load_clip(folders["custom text"])
    model = copy.deepcopy(loaded.model)
    layers = torch.nn.Linear(16, 20), torch.nn.GELU(), torch.nn.Linear(20, 24)
    model.text = HuggingFaceTower(torch.nn.Sequential(*layers))
    loaded = dataclasses.replace(loaded, model=model)
    for refused in (
        lambda loaded: loaded.projection,
        lambda loaded: loaded.embed_texts(PROMPTS),
    ):
        with pytest.raises(ValueError, match=r"multi-layer.*pseudo-inverse") as caught:
            refused(loaded)
        assert "from_features" in str(caught.value)
    assert loaded.text_features(PROMPTS).shape == (3, 24)


def test_eos_leaves_the_model_as_it_was(folders):
    for name in ("vit", "siglip"):
        loaded = load_clip(folders[name])
        before = loaded.text_features(PROMPTS)
        keys = set(loaded.model.state_dict())
        loaded.embed_texts(PROMPTS)
        assert set(loaded.model.state_dict()) == keys
        np.testing.assert_array_equal(loaded.text_features(PROMPTS), before)


@pytest.mark.parametrize("encode", [OpenCLIP.text_features, OpenCLIP.embed_texts])
def test_batches_do_not_change_the_result(vit, encode):
    whole = encode(vit, PROMPTS)
    # The products of another batch size round otherwise in the last bits.
    lengths = np.linalg.norm(whole, axis=-1, keepdims=True)
    difference = encode(vit, PROMPTS, batch_size=2) - whole
    np.testing.assert_allclose(difference / lengths, 0, atol=1e-6)
    assert encode(vit, []).shape == (0, whole.shape[1])


def test_images_are_embedded_without_normalising(vit, folders):
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    embeddings = vit.embed_scaled(batch)
    assert embeddings.dtype == torch.float32
    assert not embeddings.requires_grad
    np.testing.assert_allclose(embeddings, vit.model.visual(batch), atol=1e-6)
    # CoCa normalises unless told not to.
    coca = load_clip(folders["coca"])
    lengths = np.linalg.norm(coca.embed_scaled(batch), axis=1)
    assert not np.allclose(lengths, 1, atol=1e-3)


# Towers of timm, in their smallest sizes

TIMM = {
    "eva02": ("eva02_tiny_patch14_224", "token", 224),
    "mobileclip2": ("fastvit_t8", "avg", 64),
    "pe-core": ("vit_pe_core_tiny_patch16_384", "map", 384),
}


@pytest.mark.parametrize("name", TIMM)
def test_towers_of_timm_give_what_open_clip_gives(tmp_path, name):
    tower, pool, side = TIMM[name]
    config = architecture("custom text")
    config["vision_cfg"] = {
        "timm_model_name": tower,
        "timm_model_pretrained": False,
        "timm_pool": pool,
        "timm_proj": None,
        "image_size": side,
    }
    folder = write_folder(tmp_path / name, config)
    images = list(np.random.default_rng(0).integers(0, 256, (2, 70, 90, 3), np.uint8))
    embedder = CLIPEmbedder(folder, device="cpu", cache_dir=tmp_path / "cache")
    found = embedder.transform(images)
    loaded = load_clip(folder)
    batch = [loaded.preprocess(Image.fromarray(image)) for image in images]
    with torch.no_grad():
        expected = loaded.model.encode_image(torch.stack(batch)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    again = pickle.loads(pickle.dumps(embedder)).transform(images)
    np.testing.assert_array_equal(again, found)
    head = TextHead.from_clip(["cat", "dog"], folder)
    np.testing.assert_allclose(
        unit(head.eos @ head.projection), head.text_features, atol=1e-5
    )


# Tokenizers


def test_folder_with_own_vocabulary(tmp_path, vit):
    merges = ["#version: 0.2", "c a", "ca t</w>", "d o", "do g</w>"]
    config = architecture("vit")
    # 256 bytes, the same at the end of a word, 4 merges, start and end.
    config["text_cfg"]["vocab_size"] = 512 + 4 + 2
    folder = write_folder(tmp_path / "own", config)
    with gzip.open(folder / "bpe_simple_vocab.txt.gz", "wt") as file:
        file.write("\n".join(merges))
    loaded = load_clip(folder)
    assert loaded.tokenizer.encode("cat dog") == [513, 515]
    assert loaded.tokenizer.context_length == 20
    assert loaded.tokenizer is loaded.tokenizer
    assert loaded.text_features(["cat"]).shape == (1, 24)


def test_folder_without_its_vocabulary_is_refused(tmp_path):
    config = architecture("vit")
    config["text_cfg"]["vocab_size"] = 600
    loaded = load_clip(write_folder(tmp_path / "own", config))
    assert loaded.embed_scaled(torch.zeros(1, 3, 32, 32)).shape == (1, 24)
    with pytest.raises(ValueError, match=r"49408 tokens.*600.*bpe_simple_vocab"):
        loaded.text_features(["cat"])


def test_prompts_that_any_tokenizer_cuts_are_reported():
    class Cutter:
        """Shows of each prompt the first 16 letters, as numbers."""

        def __call__(self, texts):
            return torch.tensor([[*map(ord, text.ljust(16)[:16])] for text in texts])

    prompts = ["short", "word " * 99]
    assert _clip._cut_prompts(Cutter(), prompts, Cutter()(prompts)) == prompts[1:]


def test_prompts_that_are_cut_are_reported(vit):
    fits = "a" + " a" * 17
    assert len(vit.tokenizer.encode(fits)) == 18
    vit.text_features([fits])
    with pytest.warns(UserWarning, match="1 of 2 prompts are longer than the 20 tok"):
        vit.text_features([fits, f"{fits} a"])


def test_built_in_name_uses_the_default_vocabulary(folders, known_architecture):
    known_architecture(architecture("vit"))
    weights = folders["vit"] / "open_clip_model.safetensors"
    loaded = load_clip("ViT-test-16", weights)
    assert loaded.tokenizer(["a cat"]).shape == (1, 20)


@pytest.fixture
def transformers(monkeypatch):
    """Pretend that transformers is there, or not, whichever is the case."""
    import importlib.util

    found = {"transformers": object()}

    def find_spec(name, *rest, find=importlib.util.find_spec):
        return found[name] if name in found else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    return found


def hugging_face_config(**text):
    config = architecture("custom text")
    config["text_cfg"] = {
        "hf_model_name": "someone/bert",
        "hf_tokenizer_name": "someone/bert",
        "hf_proj_type": "linear",
        **text,
    }
    return config


@pytest.fixture
def hugging_face_folder(tmp_path, transformers, monkeypatch):
    """Folder whose text side is open_clip's wrapper of transformers, stood in for."""

    class Encoder(HuggingFaceTower):
        made_with = None

        def __init__(self, name, output_dim, **options):
            super().__init__(torch.nn.Linear(16, output_dim, bias=False))
            self.context_length, self.vocab_size = 20, 49408
            Encoder.made_with = name, options

    class Tokenizer:
        made_with = None

        def __init__(self, name, local_files_only=False, **options):
            if local_files_only and not os.path.isdir(str(name)):
                raise OSError("not in the cache")
            Tokenizer.made_with = name, options
            self.tokenizer = open_clip.SimpleTokenizer(context_length=20)

        def __call__(self, prompts):
            return self.tokenizer(prompts)

    monkeypatch.setattr(open_clip.model, "HFTextEncoder", Encoder)
    monkeypatch.setattr(open_clip.tokenizer, "HFTokenizer", Tokenizer)
    config = hugging_face_config()
    folder = write_folder(tmp_path / "hugging", config)
    return folder, Encoder, Tokenizer


def test_hugging_face_text_side_needs_transformers(
    tmp_path, folders, transformers, hugging_face_folder
):
    transformers["transformers"] = None
    with pytest.raises(ImportError, match=r"hugging.*needs transformers: pip"):
        load_clip(hugging_face_folder[0])
    # A tower of open_clip's own may still want a tokenizer of the hub.
    folder = shutil.copytree(folders["vit"], tmp_path / "model")
    config = {"model_cfg": architecture("vit")}
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "someone/tokens"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    loaded = load_clip(folder)
    assert loaded.embed_scaled(torch.zeros(1, 3, 32, 32)).shape == (1, 24)
    with pytest.raises(ImportError, match="text side of model"):
        loaded.text_features(["cat"])


def test_hugging_face_text_side_comes_from_the_cache(
    hugging_face_folder, fake_hub, tmp_path
):
    folder, encoder, _ = hugging_face_folder
    (tmp_path / "config.json").write_text("{}")
    snapshot = put_in_cache(
        tmp_path / "hub", "someone/bert", config=tmp_path / "config.json"
    )
    loaded = load_clip(folder)
    assert encoder.made_with[0] == str(snapshot)
    assert not encoder.made_with[1]["pretrained"]
    assert fake_hub[1] == []
    projection, bias = loaded.projection
    assert projection.shape == (16, 24)
    assert bias is None


def test_hugging_face_text_side_that_is_nowhere_fails_fast(hugging_face_folder):
    with pytest.raises(OSError, match="hugging are not all on this machine"):
        load_clip(hugging_face_folder[0])


def test_hugging_face_text_side_in_a_folder_needs_no_hub(
    hugging_face_folder, tmp_path, fake_hub
):
    _, encoder, tokenizer = hugging_face_folder
    config = hugging_face_config(
        hf_model_name=str(tmp_path), tokenizer_kwargs={"clean": "canonicalize"}
    )
    folder = write_folder(tmp_path / "whole", config)
    (folder / "tokenizer_config.json").write_text("{}")
    loaded = load_clip(folder)
    assert loaded.text_features(PROMPTS).shape == (3, 24)
    assert encoder.made_with[0] == str(tmp_path)
    assert tokenizer.made_with[0] == str(folder)
    assert tokenizer.made_with[1]["clean"] == "canonicalize"
    assert fake_hub[1] == []


def test_hugging_face_tokenizer_is_fetched_when_it_can_be(
    hugging_face_folder, fake_hub, monkeypatch
):
    folder, _, tokenizer = hugging_face_folder
    fake_hub[0]["someone/bert/config.json"] = b"{}"
    loaded = load_clip(folder)
    with pytest.raises(OSError, match=r"has no tokenizer_config\.json"):
        loaded.text_features(PROMPTS)
    fake_hub[0]["someone/bert/tokenizer_config.json"] = b"{}"
    assert loaded.text_features(PROMPTS).shape == (3, 24)
    assert tokenizer.made_with[0] == "someone/bert"

"""Models of Hugging Face transformers, tiny and random, as the library saves them."""

import json
import pickle
import shutil
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from hub_server import put_in_cache
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.pipeline import make_pipeline

from skbridge import BridgedGDAClassifier, CLIPEmbedder, CLIPTexts, TextHead
from skbridge._clip import load as _load
from skbridge._clip.load import load_clip, resolve_model
from skbridge._clip.transformers import Transformers

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("empty_hub")

PROMPTS = ["a cat", "a dog.", "b"]
LAYERS = {
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
VISION = {**LAYERS, "image_size": 32, "patch_size": 8, "projection_dim": 24}
LETTERS = [*map(chr, range(97, 123)), "."]
TEXT = {**LAYERS, "max_position_embeddings": 12, "projection_dim": 24}
WORDS = {"vocab_size": 56, "bos_token_id": 54, "eos_token_id": 55, "pad_token_id": 55}
SQUARE = {"height": 32, "width": 32}


def clip_tokenizer():
    names = [*LETTERS, *(f"{c}</w>" for c in LETTERS)]
    names += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: number for number, name in enumerate(names)}
    return transformers.CLIPTokenizer(vocabulary, [], model_max_length=12)


def siglip2_tokenizer():
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *LETTERS]
    vocabulary = {name: number for number, name in enumerate(names)}
    return transformers.Siglip2Tokenizer(vocabulary, [], model_max_length=12)


def clip_processor():
    return transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE)


def clip():
    config = transformers.CLIPConfig(
        text_config={**TEXT, **WORDS}, vision_config=VISION, projection_dim=24
    )
    return transformers.CLIPModel(config), clip_processor(), clip_tokenizer()


def metaclip2():
    config = transformers.MetaClip2Config(
        text_config={**TEXT, **WORDS}, vision_config=VISION, projection_dim=24
    )
    return transformers.MetaClip2Model(config), clip_processor(), clip_tokenizer()


def chinese_clip():
    text = {**TEXT, "vocab_size": 56, "pad_token_id": 55}
    config = transformers.ChineseCLIPConfig(
        text_config=text, vision_config=VISION, projection_dim=24
    )
    return transformers.ChineseCLIPModel(config), clip_processor(), clip_tokenizer()


def siglip2():
    # The checkpoints of SigLIP 2 for one size are of SigLIP's class.
    text = {**TEXT, "vocab_size": 40, "projection_size": 16, "pad_token_id": 0}
    text |= {"bos_token_id": 2, "eos_token_id": 1}
    model = transformers.SiglipModel(
        transformers.SiglipConfig(text_config=text, vision_config=VISION)
    )
    processor = transformers.SiglipImageProcessor(size=SQUARE)
    return model, processor, siglip2_tokenizer()


def dinov2():
    config = transformers.Dinov2Config(**LAYERS, image_size=32, patch_size=8)
    processor = transformers.BitImageProcessor(
        size={"shortest_edge": 36}, crop_size=SQUARE
    )
    return transformers.Dinov2Model(config), processor, None


def dinov3():
    config = transformers.DINOv3ViTConfig(**LAYERS, image_size=32, patch_size=8)
    processor = transformers.DINOv3ViTImageProcessor(size=SQUARE)
    return transformers.DINOv3ViTModel(config), processor, None


MODELS = {
    make.__name__: make
    for make in (clip, metaclip2, chinese_clip, siglip2, dinov2, dinov3)
}
WITH_TEXTS = ["clip", "metaclip2", "chinese_clip", "siglip2"]


def write_folder(folder, parts):
    with torch.no_grad():
        for parameter in parts[0].parameters():
            # Biases and the like start at zero, which would hide their omission.
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn(parameter.shape)
    for part in filter(None, parts):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("transformers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {
            name: write_folder(root / name, make()) for name, make in MODELS.items()
        }


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    sizes = [(40, 60), (32, 32), (100, 50), (30, 31)]
    noise = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    return [Image.fromarray(pixels) for pixels in noise]


def library_embeddings(folder, images, backend):
    """Image embeddings by transformers' own calls."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend=backend)
    inputs = processor(images, return_tensors="pt")
    with torch.no_grad():
        if hasattr(model, "get_image_features"):
            return model.get_image_features(**inputs).pooler_output.numpy()
        return model(**inputs).pooler_output.numpy()


def cosines(one, other):
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(axis=1) / lengths


# Images


@pytest.mark.parametrize("name", MODELS)
def test_image_embeddings_are_those_of_transformers(folders, images, name):
    found = CLIPEmbedder(folders[name], device="cpu").transform(images)
    expected = library_embeddings(folders[name], images, "pil")
    if name == "dinov3":  # Its processor does not round to 8 bits.
        assert cosines(found, expected).min() > 0.9999
    else:
        # Float32 sums of another order: 3e-6 was seen on one processor.
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.01
    # The other processors of the library round otherwise; noise is the worst case.
    near = library_embeddings(folders[name], images, "torchvision")
    assert cosines(found, near).min() > 0.999


def test_embedder_describes_the_model(folders):
    embedder = CLIPEmbedder(folders["clip"], device="cpu")
    assert embedder.get_feature_names_out()[-1] == "clip_23"
    loaded = load_clip(folders["clip"])
    assert loaded.logit_scale == pytest.approx(loaded.model.logit_scale.exp().item())
    assert loaded.image_side == 32
    assert load_clip(folders["dinov2"]).logit_scale == 100


def test_vision_tower_with_projection_keeps_it(tmp_path, images):
    config = transformers.CLIPVisionConfig(**VISION)
    model = transformers.CLIPVisionModelWithProjection(config).eval()
    write_folder(tmp_path, (model, clip_processor()))
    found = CLIPEmbedder(tmp_path, device="cpu").transform(images)
    pixels = clip_processor()(images, return_tensors="pt")
    with torch.no_grad():
        expected = model(**pixels).image_embeds.numpy()
    assert found.shape == (4, 24)
    assert cosines(found, expected).min() > 0.999


def test_cls_token_stands_in_for_a_pooler_without_weights(tmp_path, images):
    config = transformers.ViTConfig(**LAYERS, image_size=32, patch_size=8)
    model = transformers.ViTModel(config, add_pooling_layer=False).eval()
    processor = transformers.ViTImageProcessor(size=SQUARE)
    write_folder(tmp_path, (model, processor))
    first, second = (
        CLIPEmbedder(folder, device="cpu").transform(images)
        for folder in (tmp_path, shutil.copytree(tmp_path, tmp_path / "copy"))
    )
    np.testing.assert_array_equal(first, second)
    with torch.no_grad():
        output = model(**processor(images, return_tensors="pt"))
    expected = output.last_hidden_state[:, 0].numpy()
    assert cosines(first, expected).min() > 0.999


def test_model_of_timm_takes_its_own_preprocessing(tmp_path, images):
    kinds = {"architecture": "test_vit", "num_classes": 0}
    given = {"input_size": [3, 160, 160], "mean": [0.5] * 3, "std": [0.4] * 3}
    config = transformers.TimmWrapperConfig.from_dict(
        {**kinds, "pretrained_cfg": {**given, "interpolation": "bicubic"}}
    )
    model = transformers.TimmWrapperModel(config).eval()
    model.save_pretrained(tmp_path)
    found = CLIPEmbedder(tmp_path, device="cpu").transform(images)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    with torch.no_grad():
        output = model(processor(images, return_tensors="pt")["pixel_values"])
    np.testing.assert_allclose(found, output.pooler_output.numpy(), atol=1e-5)


# Texts


@pytest.mark.parametrize("name", WITH_TEXTS)
def test_eos_and_projection_give_the_text_features(folders, name):
    loaded = load_clip(folders[name])
    eos, (projection, bias) = loaded.embed_texts(PROMPTS), loaded.projection
    assert projection.shape == (eos.shape[1], loaded.embed_dim)
    assert (bias is not None) == (name == "siglip2")
    features = loaded.text_features(PROMPTS)
    product = eos @ projection + (0 if bias is None else bias)
    np.testing.assert_allclose(product, features, atol=1e-5)
    assert np.ptp(features, axis=0).max() > 0.001


@pytest.mark.parametrize("name", WITH_TEXTS)
def test_text_features_are_those_of_transformers(folders, name):
    loaded = load_clip(folders[name])
    loaded.embed_texts(PROMPTS)  # Leaves the model as it was.
    model = transformers.AutoModel.from_pretrained(folders[name]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[name])
    tokens = tokenizer(
        PROMPTS, padding="max_length", max_length=12, return_tensors="pt"
    )
    if name == "siglip2":
        del tokens["attention_mask"]
    with torch.no_grad():
        expected = model.get_text_features(**tokens).pooler_output.numpy()
    np.testing.assert_allclose(loaded.text_features(PROMPTS), expected, atol=1e-5)
    np.testing.assert_allclose(
        CLIPEmbedder(folders[name], device="cpu").encode_text(PROMPTS),
        expected,
        atol=1e-5,
    )


@pytest.mark.parametrize("name", ["clip", "siglip2"])
def test_prompts_that_are_cut_are_reported(folders, name):
    loaded = load_clip(folders[name])
    with pytest.warns(UserWarning, match="1 of 2 prompts are longer than the 12 tok"):
        loaded.text_features(["a cat", "a very long description"])


def test_model_of_images_only_says_so_of_texts(folders):
    for call in (
        lambda: CLIPEmbedder(folders["dinov2"], device="cpu").encode_text(["a cat"]),
        lambda: TextHead.from_clip(["cat", "dog"], folders["dinov2"]),
    ):
        with pytest.raises(ValueError, match="dinov2 has no text tower") as caught:
            call()
        assert "texts=None" in str(caught.value)


def test_projection_that_is_not_linear_is_refused_for_texts(
    folders, images, monkeypatch
):
    loaded = load_clip(folders["clip"])
    layers = torch.nn.Linear(16, 20), torch.nn.GELU(), torch.nn.Linear(20, 24)
    monkeypatch.setitem(
        loaded.model._modules, "text_projection", torch.nn.Sequential(*layers)
    )
    with pytest.raises(ValueError, match="multi-layer projection") as caught:
        TextHead.from_clip(["cat", "dog"], folders["clip"])
    assert "texts=None" in str(caught.value)
    assert loaded.text_features(PROMPTS).shape == (3, 24)
    assert CLIPEmbedder(folders["clip"], device="cpu").transform(images).shape[1] == 24


# Estimators


@pytest.fixture(scope="module")
def shots():
    """Two classes of images that any tower tells apart."""
    rng = np.random.default_rng(0)
    light = rng.integers(150, 256, (6, 32, 32, 3), dtype=np.uint8)
    dark = rng.integers(0, 100, (6, 32, 32, 3), dtype=np.uint8)
    return list(np.concatenate([light, dark])), ["cat"] * 6 + ["dog"] * 6


@pytest.mark.filterwarnings("ignore:Zero-shot", "ignore:.*chance")
@pytest.mark.parametrize("name", ["clip", "siglip2", "dinov2"])
def test_pipeline_with_a_cache(folders, shots, tmp_path, monkeypatch, name):
    folder, (X, y) = str(folders[name]), shots
    options = {"device": "cpu", "cache_dir": tmp_path / "cache"}
    texts = CLIPTexts(folder, templates="{}", **options) if name in WITH_TEXTS else None
    pipeline = make_pipeline(
        CLIPEmbedder(folder, **options), BridgedGDAClassifier(texts)
    )
    pipeline.fit(X, y)
    assert pipeline.score(X, y) > 0.9
    expected = pipeline.predict_proba(X)
    sent = pickle.dumps(pipeline[0])
    assert len(sent) < 1000
    # What is in the cache needs no model.
    monkeypatch.setattr(_load, "_LOADED", OrderedDict())
    monkeypatch.setattr(Transformers, "embed", pytest.fail)
    np.testing.assert_array_equal(
        pickle.loads(sent).transform(X), pipeline[0].transform(X)
    )
    np.testing.assert_array_equal(pipeline.predict_proba(X), expected)


def test_fingerprint_is_that_of_the_content(folders, tmp_path):
    folder = shutil.copytree(folders["clip"], tmp_path / "copy")
    before = load_clip(folder).fingerprint
    assert before == load_clip(folders["clip"]).fingerprint
    weights = load_file(folder / "model.safetensors")
    weights["text_projection.weight"] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert load_clip(folder).fingerprint != before


def test_loading_leaves_the_random_stream_alone(folders, monkeypatch):
    monkeypatch.setattr(_load, "_LOADED", OrderedDict())
    state = torch.random.get_rng_state()
    load_clip(folders["dinov2"])
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", ["clip", "siglip2", "dinov2"])
def test_bfloat16_stays_close(folders, images, name):
    loaded = load_clip(folders[name])
    pixels = np.stack([loaded.resize(image) for image in images])
    full, half = (
        loaded.embed(torch.from_numpy(pixels), precision)
        for precision in ("fp32", "bf16")
    )
    assert half.dtype == torch.float32
    assert torch.cosine_similarity(full, half).min() > 0.999


# open_clip with tokenizers of transformers


@pytest.mark.parametrize(("length", "is_cut"), [(5, False), (40, True)])
def test_open_clip_folder_with_the_tokenizer_of_siglip2(tmp_path, length, is_cut):
    tokenizer = siglip2_tokenizer()
    text = {"context_length": 12, "vocab_size": 40, "width": 16, "heads": 2}
    text |= {"layers": 1, "hf_tokenizer_name": "someone/siglip2", "pool_type": "last"}
    text |= {"tokenizer_kwargs": {"clean": "canonicalize"}, "no_causal_mask": True}
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8}
    config = {"embed_dim": 16, "vision_cfg": {**vision, "patch_size": 16}}
    config["text_cfg"] = {**text, "proj_bias": True}
    model = open_clip.model.CustomTextCLIP(**config).eval()
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    config = {"model_cfg": {**config, "custom_text": True}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    tokenizer.save_pretrained(tmp_path)
    loaded = load_clip(tmp_path)
    prompts = ["b", "a" * length]
    if is_cut:
        with pytest.warns(UserWarning, match="1 of 2 prompts are longer than the 12"):
            features = loaded.text_features(prompts)
    else:
        features = loaded.text_features(prompts)
    tokens = tokenizer(
        prompts,
        padding="max_length",
        truncation=True,
        max_length=12,
        return_tensors="pt",
    )
    with torch.no_grad():
        expected = model.encode_text(tokens["input_ids"]).numpy()
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5)


# Folders


@pytest.fixture
def folder(folders, tmp_path):
    """A private copy of a model."""
    return shutil.copytree(folders["clip"], tmp_path / "mine")


def test_folder_without_a_part_names_the_part(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    loaded = load_clip(folder)
    with pytest.raises(FileNotFoundError, match="tokenizer of mine could not be read"):
        loaded.text_features(PROMPTS)
    (folder / "preprocessor_config.json").unlink()
    _load._LOADED.clear()
    with pytest.raises(FileNotFoundError, match="image processor of mine"):
        load_clip(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        resolve_model(folder)


def test_damaged_and_foreign_weights_are_refused(folder, folders):
    (folder / "model.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(ValueError, match="weights of mine could not be loaded"):
        load_clip(folder)
    shutil.copy(folders["dinov2"] / "model.safetensors", folder)
    with pytest.raises(ValueError, match=r"tensors of CLIPModel are not in the check"):
        load_clip(folder)


def test_model_with_its_own_code_is_refused(folder):
    marker = folder / "ran"
    (folder / "mine.py").write_text(f"open({str(marker)!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "mine"
    config["auto_map"] = {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="needs code of its own repository"):
        load_clip(folder)
    assert not marker.exists()


class Touch:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_pickled_weights_run_no_code_and_come_second(folder):
    marker = folder / "ran"
    torch.save({"weight": Touch(marker)}, folder / "pytorch_model.bin")
    assert load_clip(folder).embed_dim == 24
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="expected a file of tensors"):
        load_clip(folder)
    assert not marker.exists()


def test_pickled_tensors_are_read(folder, folders):
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    plain = load_clip(folders["clip"])
    np.testing.assert_array_equal(
        load_clip(folder).text_features(PROMPTS), plain.text_features(PROMPTS)
    )


def test_model_of_texts_only_is_refused(tmp_path):
    config = transformers.BertConfig(**LAYERS, vocab_size=56)
    write_folder(tmp_path, (transformers.BertModel(config), clip_processor()))
    with pytest.raises(ValueError, match="BertModel, which does not embed images"):
        load_clip(tmp_path)


def test_image_processor_that_gives_no_image_is_refused(tmp_path):
    # NaFlex: patches of images of any shape.
    text = {**LAYERS, "vocab_size": 40, "max_position_embeddings": 12}
    text |= {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    vision = {**LAYERS, "num_patches": 16, "patch_size": 8}
    config = transformers.Siglip2Config(text_config=text, vision_config=vision)
    processor = transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    write_folder(tmp_path, (transformers.Siglip2Model(config), processor))
    with pytest.raises(ValueError, match="does more than to resize, crop and normal"):
        load_clip(tmp_path)


# The hub


def test_repository_is_downloaded_once_and_then_found_offline(
    folders, fake_hub, monkeypatch
):
    files, requests = fake_hub
    for path in folders["clip"].iterdir():
        files[f"someone/tiny-clip/{path.name}"] = path.read_bytes()
    files["someone/tiny-clip/code.py"] = b"raise SystemExit"
    loaded = load_clip("someone/tiny-clip")
    assert (loaded.label, loaded.slug) == ("tiny-clip", "tiny_clip")
    assert not any("code.py" in path for _, path in requests)
    plain = load_clip(folders["clip"]).text_features(PROMPTS)
    np.testing.assert_array_equal(loaded.text_features(PROMPTS), plain)
    monkeypatch.setattr(_load, "_LOADED", OrderedDict())
    requests.clear()
    again = load_clip("someone/tiny-clip")
    np.testing.assert_array_equal(again.text_features(PROMPTS), plain)
    assert requests == []


def test_repository_out_of_reach_fails_once_and_fast(monkeypatch):
    import huggingface_hub.constants as hub

    start = time.perf_counter()
    with pytest.raises(OSError, match="no-clip are not all on this machine"):
        load_clip("someone/no-clip")
    assert time.perf_counter() - start < 3
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="HF_HUB_OFFLINE is set") as caught:
        load_clip("someone/no-clip")
    assert "bundled model='skbridge-tiny'" in str(caught.value)
    assert "write model='hf-hub:someone/no-clip'" in str(caught.value)


@pytest.mark.parametrize(
    ("model", "label"),
    [
        ("openai/clip-vit-base-patch32", "ViT-B-32 (openai)"),
        ("sentence-transformers/clip-ViT-B-16", "ViT-B-16 (openai)"),
        ("facebook/metaclip-b16-400m", "ViT-B-16-quickgelu (metaclip_400m)"),
        ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "ViT-B-32 (laion2b_s34b_b79k)"),
    ],
)
def test_repository_with_weights_of_open_clip_is_mapped(
    model, label, tmp_path, folders
):
    spec = resolve_model(model)
    assert spec.label == f"{model}, as {label} of open_clip"
    assert resolve_model(spec.name, spec.pretrained).name == spec.name
    # What is in the cache is taken as it is.
    put_in_cache(tmp_path / "hub", model, config=folders["clip"] / "config.json")
    assert resolve_model(model).backend is Transformers


def test_every_mapped_name_is_one_of_open_clip():
    from skbridge._clip.weights import _SAME_WEIGHTS

    for repository, (name, tag) in _SAME_WEIGHTS.items():
        assert resolve_model(repository).pretrained == tag
        assert resolve_model(name, tag).pretrained == tag


def test_names_of_neither_library_are_unknown():
    for model in ("ViT-B/99", "no such model", "a/b/clip"):
        with pytest.raises(ValueError, match="Unknown model"):
            resolve_model(model)


def test_missing_transformers_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install skbridge\[transformers\]"):
        load_clip("someone/no-clip")

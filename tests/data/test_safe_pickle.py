"""What the restricted reader admits, and that nothing else gets through."""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
import pickletools
import resource
import struct

import numpy as np
import pytest

from ditr.data.safe_pickle import load_plain
from ditr.errors import DitrError
from tests.reference.esam_infos import dump

DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16", ">f8", ">i4"]


def load(raw: bytes) -> object:
    return load_plain(raw, where="file.pkl")


def refused(raw: bytes) -> str:
    with pytest.raises(DitrError) as caught:
        load(raw)
    return str(caught.value)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("numpy_1", [True, False])
def test_arrays_of_every_numeric_dtype_shape_and_order(tmp_path, protocol, numpy_1):
    rng = np.random.default_rng(0)
    arrays = [(rng.normal(size=(3, 4, 2)) * 50).astype(dtype) for dtype in DTYPES if np.dtype(dtype).kind != "c"]
    arrays += [(rng.normal(size=(2, 3)) + 1j).astype(dtype) for dtype in ("c8", "c16")]
    arrays += [np.asfortranarray(arrays[3]), arrays[4][::2, 1:], arrays[5].transpose(1, 2, 0)]
    arrays += [np.zeros((0, 4)), np.array(7), np.array([np.nan, -np.inf])]
    dump(arrays, tmp_path / "a.pkl", protocol=protocol, numpy_1=numpy_1)
    back = load((tmp_path / "a.pkl").read_bytes())
    assert isinstance(back, list)
    for mine, theirs in zip(arrays, back, strict=True):
        # Numpy's own reader too may put foreign bytes into the machine's order.
        assert theirs.dtype.newbyteorder("=") == mine.dtype.newbyteorder("=")
        assert theirs.shape == mine.shape
        assert np.array_equal(theirs, mine, equal_nan=mine.dtype.kind == "f")


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_containers_and_numpy_scalars(protocol):
    content = {
        "texts": ["", "scene", "é\ncos\nsystem\n'", "x" * 300, b"", b"\x00\xff", b"\ncos\nsystem\n" * 50],
        "numbers": (1, 300, 70000, -(2**70), 2**3000, 1.5, True, None, 2 + 3j),
        "sets": [{1, 2}, frozenset({3})],
        "ordered": collections.OrderedDict(a=1, b=collections.OrderedDict(c=2)),
        "numpy": [np.float64(1.25), np.int32(-4), np.bool_(True), np.float32(0.1), np.complex64(1j)],
    }
    assert load(pickle.dumps(content, protocol=protocol)) == content


def test_what_was_one_object_stays_one(tmp_path):
    """Poses share their dtype through the pickle's memo."""
    poses = [np.full((4, 4), float(n)) for n in range(50)]
    dump({"poses": poses, "same": poses[7]}, tmp_path / "a.pkl")
    back = load((tmp_path / "a.pkl").read_bytes())
    assert all(np.array_equal(a, b) for a, b in zip(back["poses"], poses, strict=True))
    assert back["same"] is back["poses"][7]


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("content", "name"),
    [
        pytest.param(Call(os.system, "touch pwned"), "system", id="os.system"),
        pytest.param(Call(eval, "open('pwned', 'w')"), ".eval", id="eval"),
        pytest.param(Call(exec, "open('pwned', 'w')"), ".exec", id="exec"),
        pytest.param(Call(getattr, Call(__import__, "os"), "system"), ".getattr", id="getattr"),
        pytest.param(Call(print, "x"), ".print", id="print"),
        pytest.param(collections.Counter("a"), "collections.Counter", id="Counter"),
        pytest.param(collections.defaultdict(list), "collections.defaultdict", id="defaultdict"),
        pytest.param(Call(np.load, "x.npy"), "load", id="np.load"),
        pytest.param(Call(np.fromfile, "/etc/passwd"), "fromfile", id="fromfile"),
        pytest.param([1, {"deep": (Call(os.remove, "x"),)}], "remove", id="nested"),
        pytest.param(np.ma.masked_array([1.0], [True]), "numpy.ma", id="masked"),
        pytest.param(np.array(["a"], dtype=object), "dtype 'O8'", id="objects"),
        pytest.param(np.array(["a"]), "dtype 'U1'", id="texts"),
        pytest.param(np.array([b"a"]), "dtype 'S1'", id="bytes"),
        pytest.param(np.zeros(2, dtype=[("a", "f8")]), "dtype 'V8'", id="records"),
        pytest.param(np.array(["2020"], dtype="M8[s]"), "dtype 'M8'", id="dates"),
        pytest.param(np.dtype("O"), "dtype 'O8'", id="dtype"),
    ],
)
def test_whatever_could_run_or_hold_objects_is_refused_by_name(tmp_path, monkeypatch, protocol, content, name):
    monkeypatch.chdir(tmp_path)
    assert name in refused(pickle.dumps(content, protocol=protocol))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_the_message_says_what_was_refused_first_and_where(protocol):
    raw = pickle.dumps([[0] * 300, Call(eval, "1"), Call(os.system, "x")], protocol)
    text = refused(raw)
    assert ".eval" in text
    assert "system" not in text
    at = int(text.partition("before byte ")[2].partition(";")[0])
    steps = [(step.name, position) for step, _, position in pickletools.genops(raw)]
    assert next(position for name, position in steps if name in ("GLOBAL", "STACK_GLOBAL")) < at
    assert at in [position for _, position in steps]
    assert at < raw.index(b"system")


def test_a_name_put_together_out_of_sight_is_refused_by_the_reader_itself():
    raw = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94h\x00h\x010\x8c\x06system\x93\x8c\x01x\x85R."
    assert "system" in refused(raw)


BUILD_ON_LENT = {
    "slot": b"cnumpy\ndtype\n(N(S'_function'\nS'other'\ndtb.",
    "dictionary": b"ccollections\nOrderedDict\n(S'__call__'\nS'other'\ndb.",
    "ordered dict": b"ccollections\nOrderedDict\n(tR(S'keys'\nS'other'\ndb.",
    "set item": b"cnumpy\ndtype\nS'a'\nS'b'\ns.",
    "append": b"cnumpy\ndtype\nS'a'\na.",
}


@pytest.mark.parametrize("raw", BUILD_ON_LENT.values(), ids=BUILD_ON_LENT.keys())
def test_what_is_lent_cannot_be_changed(raw):
    refused(raw)
    array = np.arange(6.0).reshape(2, 3)
    assert np.array_equal(load(pickle.dumps(array, 2)), array)
    assert load(pickle.dumps(collections.OrderedDict(a=1))) == {"a": 1}


def array_pickle(*, shape: str, code: str = "f8", state: str | None = None, content: bytes = b"\x00" * 16) -> bytes:
    """Protocol 2 by hand: an array whose parts can be anything."""
    state = state or "(I3\nS'<'\nNNNI-1\nI-1\nI0\nt"
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n(I0\ntC\x01b\x87R(I1\n"
        + shape.encode()
        + b"cnumpy\ndtype\nS'"
        + code.encode()
        + b"'\nI0\nI1\n\x87R"
        + state.encode()
        + b"bI00\nB"
        + struct.pack("<I", len(content))
        + content
        + b"tb."
    )


def test_the_handmade_array_is_sound():
    assert np.array_equal(load(array_pickle(shape="(I2\nt")), np.zeros(2))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param(array_pickle(shape="(I1000000000000\nt"), "from 16 bytes", id="huge"),
        pytest.param(array_pickle(shape="(I4611686018427387904\nI4\nt"), "from 16 bytes", id="overflow"),
        pytest.param(array_pickle(shape="(I-2\nI-1\nt"), "from 16 bytes", id="negative"),
        pytest.param(array_pickle(shape="(I2\n" + "I1\n" * 64 + "t"), "shape", id="dimensions"),
        pytest.param(array_pickle(shape="I2\n"), "shape", id="no tuple"),
        pytest.param(array_pickle(shape="(I1\nt"), "from 16 bytes", id="short"),
        pytest.param(array_pickle(shape="(I2\nt", code="O8"), "dtype 'O8'", id="object"),
        pytest.param(array_pickle(shape="(I2\nt", code="f8,O"), "dtype 'f8,O'", id="two"),
        # State of a dtype that would make 16 bytes the addresses of two objects: flags HASOBJECT and REFCOUNT.
        pytest.param(
            array_pickle(shape="(I2\nt", state="(I3\nS'<'\nNNNI-1\nI-1\nI63\nt"), "parts or flags", id="flags"
        ),
        pytest.param(
            array_pickle(shape="(I2\nt", state="(I3\nS'<'\nNNNI9999\nI-1\nI0\nt"), "parts or flags", id="itemsize"
        ),
        pytest.param(
            array_pickle(shape="(I2\nt", state="(I4\nS'<'\nNNNI-1\nI-1\nI0\n}t"), "a dtype of state", id="metadata"
        ),
    ],
)
def test_arrays_that_lie_about_themselves_are_refused(raw, message):
    assert message in refused(raw)


def test_steps_that_need_no_name_are_refused():
    assert "an object outside the file before byte 4" in refused(b"\x80\x02\x82\x01.")
    assert "an object outside the file" in refused(b"Pid\n.")
    assert "out-of-band" in refused(b"\x80\x05\x97.")


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\x80\x02Nr\xff\xff\xff\x7f.", id="memo entry"),
        pytest.param(b"\x80\x05\x96" + struct.pack("<Q", 2**36) + b"x.", id="bytearray"),
        pytest.param(b"\x80\x04\x8e" + struct.pack("<Q", 2**36) + b"x.", id="bytes"),
        pytest.param(b"\x80\x04\x95" + struct.pack("<Q", 2**36) + b"N.", id="frame"),
    ],
)
def test_a_few_damaged_bytes_do_not_fill_the_memory(raw):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(DitrError):
        load(raw)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_the_registry_of_extensions_is_out_of_reach():
    made = refused(b"ccopy_reg\n_reconstructor\n(c__builtin__\nobject\nc__builtin__\nobject\nNtR.")
    assert "copy_reg._reconstructor" in made
    assert "copy_reg.add_extension" in refused(b"ccopy_reg\nadd_extension\n(S'os'\nS'system'\nI1\ntR\x82\x01.")


@pytest.mark.parametrize(
    "raw", [b"", b"\x80", b"not a pickle", b"\x80\x04\x95\xff\xff", b"(" * 10 + b".", b"\x80\x63N."]
)
def test_damage_is_one_error(raw):
    assert "cannot be read as a pickle" in refused(raw)


def test_nesting_without_end_is_an_error():
    nested = b"]" * 100_000 + b"a" * 99_999  # lists do not recurse when read
    assert "nested more than 64 levels" in refused(b"\x80\x02" + nested + b".")
    assert "an array of dtype [[[[[[" in refused(b"\x80\x02cnumpy\ndtype\n" + nested + b"\x85R.")


def test_every_single_changed_byte_is_read_or_refused_and_never_runs(tmp_path, monkeypatch):
    """Damage of any kind ends in data or in one kind of error."""
    monkeypatch.chdir(tmp_path)
    raw = bytearray(pickle.dumps({"pose": np.eye(2), "files": ["a.bin"], "n": np.int64(3)}, protocol=4))
    rng = np.random.default_rng(0)
    for _ in range(3000):
        changed = bytearray(raw)
        changed[rng.integers(len(raw))] = rng.integers(256)
        try:
            load(bytes(changed))
        except DitrError:
            continue
    assert not list(tmp_path.iterdir())


def references(levels: int, *, container: bytes, width: int = 2) -> bytes:
    """Each level holds the one below ``width`` times over; the last is on the stack."""
    text = pickle.PROTO + b"\x02" + pickle.NONE + pickle.BINPUT + b"\x00"
    for level in range(levels):
        text += pickle.POP + pickle.MARK + (pickle.BINGET + bytes([level])) * width
        text += container + pickle.BINPUT + bytes([level + 1])
    return text


@pytest.mark.parametrize("container", [pickle.LIST, pickle.TUPLE])
def test_references_to_references_are_counted_and_not_followed(container):
    assert "stands for 2,199,023,255,551 values" in refused(references(40, container=container) + pickle.STOP)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (pickle.EMPTY_DICT, pickle.NONE + pickle.SETITEM),
        (pickle.EMPTY_DICT + pickle.MARK, pickle.NONE + pickle.SETITEMS),
        (pickle.MARK, pickle.NONE + pickle.DICT),
        (pickle.EMPTY_SET + pickle.MARK, pickle.ADDITEMS),
        (pickle.MARK, pickle.FROZENSET),
        (b"cbuiltins\nset\n" + pickle.EMPTY_LIST, pickle.APPEND + pickle.TUPLE1 + pickle.REDUCE),
        (b"ccollections\nOrderedDict\n" + pickle.EMPTY_LIST, b"N\x86a\x85R"),
    ],
)
def test_no_key_is_hashed_that_hides_more(before, after):
    raw = references(60, container=pickle.TUPLE) + pickle.POP + before + pickle.BINGET + b"\x3c" + after + pickle.STOP
    assert "a tuple of containers as a key or in a set" in refused(raw)


def test_nothing_is_set_in_an_array():
    array = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01bt" + pickle.REDUCE
    raw = references(40, container=pickle.LIST) + pickle.POP + array + b"K\x00" + pickle.BINGET + b"\x28"
    assert "an item of a _Array to be set" in refused(raw + pickle.SETITEM + pickle.STOP)


def test_what_is_refused_is_shown_in_short():
    raw = references(40, container=pickle.TUPLE) + pickle.POP + b"cnumpy\ndtype\n" + pickle.BINGET + b"\x28"
    assert "an array of dtype ((((((" in refused(raw + pickle.TUPLE1 + pickle.REDUCE + pickle.STOP)


def test_a_list_that_holds_itself_is_refused():
    endless: list[object] = []
    endless.append(endless)
    assert "holds itself" in refused(pickle.dumps(endless))

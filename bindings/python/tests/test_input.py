"""Arrays, bytes and paths: what is a radiograph is read, all else is refused with a reason."""

import anatomix
import numpy as np
import pydicom
import pytest

from conftest import PHANTOM

RAMP = np.arange(64 * 96, dtype=np.uint16).reshape(64, 96) * 10


def layouts(array):
    """The same pixels in other layouts of memory."""
    yield "C", array
    yield "Fortran", np.asfortranarray(array)
    yield "every second column", np.repeat(array, 2, axis=1)[:, ::2]
    yield "every second row", np.repeat(array, 2, axis=0)[::2]
    yield "negative rows", np.ascontiguousarray(array[::-1])[::-1]
    yield "negative columns", np.ascontiguousarray(array[:, ::-1])[:, ::-1]
    yield "both negative", np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1]
    yield "transposed", np.ascontiguousarray(array.T).T
    yield "a window", np.pad(array, 5)[5:-5, 5:-5]
    yield "a channel", np.stack([array, array], axis=-1)[..., 1]
    unaligned = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    unaligned[...] = array
    yield "unaligned", unaligned
    readonly = array.copy()
    readonly.flags.writeable = False
    yield "read-only", readonly


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_layout_has_the_same_pixels(dtype):
    array = (RAMP // 10 % 256).astype(dtype) if dtype == np.uint8 else RAMP
    first = anatomix.Radiograph.from_array(array)
    assert (first.width, first.height) == (96, 64)
    expected = array.astype(np.float32) / np.iinfo(dtype).max
    for name, layout in layouts(array):
        assert np.array_equal(layout, array)
        radiograph = anatomix.Radiograph.from_array(layout)
        assert np.allclose(radiograph.intensities, expected, atol=1e-6), name
        assert radiograph.sha256 == first.sha256, name


def test_stored_bits_scale_and_are_checked():
    twelve = RAMP % 4096
    radiograph = anatomix.Radiograph.from_array(twelve, bits_stored=12)
    assert np.allclose(radiograph.intensities, twelve / 4095, atol=1e-4)
    with pytest.raises(ValueError, match="bits_stored is 12, but a pixel is"):
        anatomix.Radiograph.from_array(RAMP, bits_stored=12)
    for bits in (0, 17):
        with pytest.raises(ValueError, match=f"bits_stored is {bits}; pass 1 to 16"):
            anatomix.Radiograph.from_array(RAMP, bits_stored=bits)


@pytest.mark.parametrize(
    ("pixels", "error", "message"),
    [
        (RAMP.astype(np.float32), TypeError, "dtype float32, but uint8 or uint16"),
        (RAMP.astype(np.int16), TypeError, "dtype int16"),
        (RAMP.astype(bool), TypeError, "dtype bool"),
        (RAMP.astype(">u2"), TypeError, "dtype >u2"),
        (RAMP.astype(object), TypeError, "dtype object"),
        (RAMP.astype(complex), TypeError, "dtype complex128"),
        (RAMP.astype("M8[s]"), TypeError, r"dtype datetime64\[s\]"),
        (np.ma.masked_less(RAMP, 100), TypeError, "the mask would be ignored"),
        (np.array(3, np.uint8), ValueError, r"shape \[\], but a radiograph has two dimensions"),
        (RAMP.astype("U3"), TypeError, "dtype <U3"),
        (np.zeros((64, 96), [("a", "u1")]), TypeError, "dtype"),
        (RAMP.tolist(), TypeError, "a NumPy array of uint8 or uint16, not list"),
        (None, TypeError, "not NoneType"),
        (RAMP[0], ValueError, r"shape \[96\], but a radiograph has two dimensions"),
        (np.zeros((64, 96, 3), np.uint8), ValueError, r"shape \[64, 96, 3\]"),
        (np.uint8(3), TypeError, "not (numpy.)?uint8"),
        (np.zeros((0, 0), np.uint8), anatomix.RadiographError, "0x0 pixels"),
        (np.zeros((0, 96), np.uint16), anatomix.RadiographError, "96x0 pixels"),
        (np.zeros((31, 96), np.uint16), anatomix.RadiographError, "96x31 pixels"),
        (np.broadcast_to(np.uint8(7), (1 << 40, 1 << 20)), anatomix.RadiographError, "pixels, but sides from"),
        (np.broadcast_to(np.uint16(7), (20000, 20000)), anatomix.RadiographError, "pixels, but sides from"),
    ],
    ids=lambda value: None,
)
def test_other_arrays_are_refused(pixels, error, message):
    with pytest.raises(error, match=message) as raised:
        anatomix.Radiograph.from_array(pixels)
    assert ";" in str(raised.value)


def test_pixels_of_pydicom_are_those_of_the_file(engine, study):
    """The phantom has no window, so that its stored values are what is shown."""
    dataset = pydicom.dcmread(PHANTOM)
    radiograph = anatomix.Radiograph.from_array(dataset.pixel_array, bits_stored=dataset.BitsStored)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        radiograph = radiograph.inverted()
    assert np.allclose(radiograph.intensities, anatomix.Radiograph.open(PHANTOM).intensities, atol=1e-3)
    assert np.allclose(engine.study(radiograph).boxes, study.boxes, atol=1.0)


def test_intensities_are_shared_and_read_only():
    radiograph = anatomix.Radiograph.from_array(RAMP)
    first, second = radiograph.intensities, radiograph.intensities
    assert first.dtype == np.float32 and first.shape == (64, 96) and first.__array_interface__["data"] == second.__array_interface__["data"]
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        first.flags.writeable = True
    del radiograph, second
    assert np.allclose(first, RAMP / 65535, atol=1e-6)


def test_an_array_may_change_after_it_was_read():
    array = RAMP.copy()
    radiograph = anatomix.Radiograph.from_array(array)
    array[:] = 0
    assert radiograph.intensities.max() > 0.9


def test_polarity_and_mirror():
    radiograph = anatomix.Radiograph.from_array(RAMP)
    assert np.allclose(radiograph.inverted().intensities, 1 - radiograph.intensities, atol=1e-6)
    assert np.array_equal(radiograph.mirrored().intensities, radiograph.intensities[:, ::-1])


def test_a_window_is_chosen(engine):
    data = PHANTOM.read_bytes()
    by_path = lambda window: anatomix.Radiograph.open(PHANTOM, window=window)
    by_bytes = lambda window: anatomix.Radiograph.from_bytes(data, window=window)
    for read in (by_path, by_bytes):
        provenance = engine.study(read(1)).provenance
        assert (provenance["window"], provenance["burned_in_annotation"], provenance["lossy_image_compression"]) == ("1", "YES", "00")
        with pytest.raises(anatomix.RadiographError, match="window 2 was chosen"):
            read(2)


def test_files_bytes_and_arrays_are_the_same_radiograph(engine, study):
    data = PHANTOM.read_bytes()
    for given in (data, bytearray(data), memoryview(data)):
        radiograph = anatomix.Radiograph.from_bytes(given, "phantom")
        assert radiograph.name == "phantom" and radiograph.sha256 == study.provenance["input_sha256"]
        assert np.array_equal(engine.study(radiograph).boxes, study.boxes)
    for path in (PHANTOM, str(PHANTOM)):
        assert np.array_equal(engine.study(path).boxes, study.boxes)


@pytest.mark.parametrize(
    ("data", "error", "code"),
    [
        (b"", anatomix.RadiographError, "radiograph_damaged"),
        (b"no picture at all", anatomix.RadiographError, "radiograph_format"),
        (bytes(1 << 20), anatomix.RadiographError, "radiograph_format"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), anatomix.RadiographError, "radiograph_damaged"),
        (PHANTOM.read_bytes()[:5000], anatomix.RadiographError, "radiograph_damaged"),
        ("text", TypeError, None),
        (RAMP, TypeError, None),
        (17, TypeError, None),
    ],
    ids=lambda value: None,
)
def test_bytes_that_are_no_picture_are_refused(data, error, code):
    with pytest.raises(error) as raised:
        anatomix.Radiograph.from_bytes(data)
    if code:
        assert raised.value.code == code and "bytes" in raised.value.message
    else:
        assert "from_array" in str(raised.value)


def test_reports_are_no_radiographs_however_they_are_cut(study):
    """Whoever reads a folder of an archive meets them, too."""
    documents = {
        study.structured_report(): "holds no pixels",
        study.presentation_state(): "holds no pixels",
        study.secondary_capture(): "not a grey image",
        study.fhir(): "not a DICOM, PNG or JPEG file",
    }
    for data, message in documents.items():
        with pytest.raises(anatomix.RadiographError, match=message):
            anatomix.Radiograph.from_bytes(data)
        step = len(data) // 300
        for cut in (data[:length] for length in range(1, min(len(data), 100_000), step)):
            with pytest.raises(anatomix.RadiographError) as error:
                anatomix.Radiograph.from_bytes(cut)
            assert error.value.code != "panic" and ";" in error.value.message


def test_paths_that_are_no_picture_are_refused(engine, tmp_path):
    for path in (tmp_path / "none.dcm", tmp_path, "nul\0byte"):
        with pytest.raises(anatomix.RadiographError) as error:
            engine.study(path)
        assert error.value.code == "radiograph_read"
    for other in (RAMP, None, 3):
        with pytest.raises(TypeError, match="a Radiograph or a path"):
            engine.study(other)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"task": "song"}, ValueError, "\"song\" is not a task; choose one of report,"),
        ({"max_tokens": 0}, ValueError, "max_tokens is 0"),
        ({"max_tokens": -1}, OverflowError, "negative"),
        ({"deadline": -1.0}, ValueError, "deadline is -1"),
        ({"deadline": float("nan")}, ValueError, "deadline is NaN"),
        ({"temperature": 101.0}, anatomix.QuestionError, "temperature is 101"),
        ({"top_p": 0.0}, anatomix.QuestionError, "top_p is 0"),
        ({"json_schema": "{", }, anatomix.QuestionError, "JSON schema cannot be used"),
        ({"json_schema": {"type": "object"}, "unconstrained": True}, ValueError, "pass one of them"),
        ({"stop": 3}, TypeError, "stop is a text, or a list of texts"),
        ({"stop": ["a", 3]}, TypeError, "stop is a text, or a list of texts"),
        ({"unknown": 3}, TypeError, "unknown"),
    ],
)
def test_options_out_of_range_are_refused(study, options, error, message):
    with pytest.raises(error, match=message):
        study.ask("Where is the left lung?", **options)


def test_questions_that_cannot_be_asked(study):
    for question in ("", "<eos>", "What is in <box>(0,0),(99999,5)</box>?"):
        with pytest.raises(anatomix.QuestionError) as error:
            study.ask(question)
        assert error.value.code == "prompt_question"
    with pytest.raises(TypeError, match="a text or a Question, not list"):
        study.ask(["a", "b"])
    with pytest.raises(TypeError, match="ask takes a single one"):
        study.ask_many("Where is the left lung?")
    with pytest.raises(TypeError, match="has its options already"):
        study.ask(anatomix.Question("Where is the left lung?"), max_tokens=3)
    assert study.ask_many([]) == []


def test_json_answers_conform(study):
    schema = {"type": "object", "properties": {"effusion": {"enum": ["none", "left", "right"]}}, "required": ["effusion"]}
    schema["additionalProperties"] = False
    answer = study.ask("Is there a pleural effusion, and where?", json_schema=schema)
    assert answer.text in [f'{{"effusion": "{side}"}}' for side in ("none", "left", "right")]

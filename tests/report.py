"""A structured report as a tree, read with pydicom, and the checks of its templates that no validator makes."""

from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset


@dataclass
class Item:
    """A content item: its relationship, its concept and value as triples of value, scheme and meaning or as they are, its children."""

    relation: str | None
    kind: str
    concept: tuple | None
    value: object
    children: list["Item"] = field(default_factory=list)

    def all(self, concept: str) -> list["Item"]:
        """The children with this concept's code."""
        return [child for child in self.children if child.concept and child.concept[0] == concept]

    def one(self, concept: str) -> "Item":
        """The only child with this concept's code."""
        (found,) = self.all(concept)
        return found

    def walk(self):
        """This item and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


def code(sequence) -> tuple:
    """The only coded entry of a sequence."""
    (entry,) = sequence
    return entry.CodeValue, entry.CodingSchemeDesignator, entry.CodeMeaning


def reference(dataset: Dataset) -> tuple:
    """The only image of a reference sequence."""
    (entry,) = dataset.ReferencedSOPSequence
    return entry.ReferencedSOPClassUID, entry.ReferencedSOPInstanceUID


def value(dataset: Dataset):
    """The value of a content item."""
    match dataset.ValueType:
        case "CONTAINER":
            template = dataset.get("ContentTemplateSequence")
            return (template[0].MappingResource, template[0].TemplateIdentifier) if template else None
        case "TEXT":
            return dataset.TextValue
        case "CODE":
            return code(dataset.ConceptCodeSequence)
        case "NUM":
            (measured,) = dataset.MeasuredValueSequence
            return float(measured.NumericValue), code(measured.MeasurementUnitsCodeSequence)
        case "UIDREF":
            return dataset.UID
        case "SCOORD":
            return dataset.GraphicType, list(dataset.GraphicData)
        case "IMAGE":
            return reference(dataset)
    raise AssertionError(f"value type {dataset.ValueType}")


def item(dataset: Dataset) -> Item:
    """The item of a data set, with those below it."""
    concept = dataset.get("ConceptNameCodeSequence")
    children = [item(child) for child in dataset.get("ContentSequence", [])]
    return Item(dataset.get("RelationshipType"), dataset.ValueType, code(concept) if concept else None, value(dataset), children)


def read(path: Path) -> tuple[Dataset, Item]:
    """A report's data set and tree."""
    dataset = pydicom.dcmread(path)
    return dataset, item(dataset)


def groups(tree: Item) -> list[Item]:
    """The measurement groups."""
    return tree.one("126010").children


def box(group: Item) -> list[float]:
    """The box of a group's region."""
    kind, graphic = group.one("111030").value
    x0, y0, x1, _, _, y1 = graphic[:6]
    assert kind == "POLYLINE"
    assert graphic == [x0, y0, x1, y0, x1, y1, x0, y1, x0, y0], f"not the closed outline of a box: {graphic}"
    return [x0, y0, x1, y1]


def check(dataset: Dataset, tree: Item, source: Dataset):
    """Checks TID 1500 and every group against TID 1410."""
    image = (source.SOPClassUID, source.SOPInstanceUID)
    assert tree.relation is None and tree.concept[:2] == ("126000", "DCM") and tree.value == ("DCMR", "1500")
    # TID 1204, 1001 to 1004, and the procedure.
    heads = [(child.relation, child.concept[0]) for child in tree.children[:8]]
    observer = ["121005", "121012", "121013", "121014", "121015", "121016"]
    context = [("HAS OBS CONTEXT", concept) for concept in observer]
    assert heads == [("HAS CONCEPT MOD", "121049"), *context, ("HAS CONCEPT MOD", "121058")]
    assert tree.one("121005").value[:2] == ("121007", "DCM")
    containers = [child.concept[0] for child in tree.children[8:]]
    assert containers == ["111028", "126010", "C0034375", "IMAGE_LABELS"]
    assert all((child.relation, child.kind) == ("CONTAINS", "CONTAINER") for child in tree.children[8:])
    # TID 1600.
    (library,) = tree.one("111028").one("126200").children
    assert (library.kind, library.value) == ("IMAGE", image)
    assert [library.one(concept).value[0] for concept in ("121139", "110910", "110911")] == [source.Modality, source.Rows, source.Columns]
    # TID 1410, row by row.
    tracked = set()
    for group in groups(tree):
        assert (group.relation, group.kind, group.concept[:2]) == ("CONTAINS", "CONTAINER", ("125007", "DCM"))
        assert group.value == ("DCMR", "1410")
        identifier, uid = group.one("112039"), group.one("112040")
        assert (identifier.relation, identifier.kind, uid.relation, uid.kind) == ("HAS OBS CONTEXT", "TEXT", "HAS OBS CONTEXT", "UIDREF")
        assert identifier.value.strip() and uid.value.startswith("2.25.")
        tracked |= {identifier.value, uid.value}
        finding, purpose, site = group.one("121071"), group.one("130400"), group.one("363698007")
        assert (finding.relation, finding.kind, purpose.value[:2]) == ("CONTAINS", "CODE", ("75958009", "SCT"))
        assert (site.relation, site.kind, site.value[1] in ("SCT", "99ANATOMIX")) == ("HAS CONCEPT MOD", "CODE", True)
        assert all(side.value[0] in ("7771000", "24028007") for side in site.all("272741003"))
        region = group.one("111030")
        (selected,) = region.children
        assert (region.relation, region.kind) == ("CONTAINS", "SCOORD")
        assert (selected.relation, selected.kind, selected.value) == ("SELECTED FROM", "IMAGE", image)
        x0, y0, x1, y1 = box(group)
        assert 0 <= x0 <= x1 <= source.Columns and 0 <= y0 <= y1 <= source.Rows
        # TID 4019.
        assert [group.one(concept).relation for concept in ("111001", "111003")] == ["HAS CONCEPT MOD"] * 2
        assert any(parameter.value.startswith("bundle_sha256=") for parameter in group.all("111002"))
    assert len(tracked) == 2 * len(groups(tree)), "two groups have the same tracking identifier"
    # Every code of the private scheme is declared, and numbers have the unit 1.
    codes = [triple for one in tree.walk() for triple in (one.concept, one.value) if isinstance(triple, tuple) and len(triple) == 3]
    declared = {entry.CodingSchemeDesignator for entry in dataset.CodingSchemeIdentificationSequence}
    assert {scheme for _, scheme, _ in codes if scheme.startswith("99")} == declared == {"99ANATOMIX"}
    numbers = [one for one in tree.walk() if one.kind == "NUM" and one.relation == "CONTAINS"]
    assert numbers and all(number.value[1] == ("1", "UCUM", "no units") for number in numbers)
    # The document.
    assert (dataset.Modality, dataset.VerificationFlag, dataset.PreliminaryFlag) == ("SR", "UNVERIFIED", "PRELIMINARY")
    (study,) = dataset.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == (source.StudyInstanceUID, source.SeriesInstanceUID)
    assert reference(series) == image
    assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
    assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID
    assert not [element.tag for element in dataset.iterall() if element.tag.is_private]

"""Parsing of annotations in Pascal VOC, also of damaged and malicious ones."""

import math
from xml.etree import ElementTree

from chromozoo.strict_json import short_repr

# Size of one annotation file. Those of CIL:54816 have 15 kB.
MAX_XML_BYTES = 4 << 20
# Side of an image in pixels.
MAX_SIDE = 1_000_000


def parse_xml(data: bytes) -> ElementTree.Element:
    """Parse an XML file without a document type.

    Raises:
        ElementTree.ParseError: The XML is damaged.
        LookupError: Its encoding is unknown.
        ValueError: The file is too large or declares a document type.
    """
    if len(data) > MAX_XML_BYTES:
        raise ValueError(f"{len(data):,} bytes are more than {MAX_XML_BYTES:,}")
    return ElementTree.fromstring(data, ElementTree.XMLParser(target=_NoDoctype()))


def read_number(element: ElementTree.Element, path: str) -> float:
    """Return a number in pixels.

    Args:
        element: Parent of the number.
        path: Path of the number below the parent, such as ``"size/width"``.

    Raises:
        ValueError: The number is missing, no number or too large.
    """
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"no {path}")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not abs(number) <= MAX_SIDE:
        raise ValueError(f"{path} is {short_repr(text)}")
    return number


class _NoDoctype(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str, system: str) -> None:
        # Nested entities could expand a few lines to a billion.
        raise ValueError("it declares a document type, which is not read")

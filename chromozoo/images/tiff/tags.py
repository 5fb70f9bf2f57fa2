"""TIFF tags, limits and supported kinds."""

from chromozoo.errors import ImageError

MAX_PAGES = 10_000
# Strips or tiles of one page.
MAX_SEGMENTS = 1_000_000
# Tags of one page: they must not fill the memory before the image is checked.
MAX_TAG_BYTES = 2**28
MAX_TAGS = 4096
# Samples per pixel of one page.
MAX_SAMPLES = 64
# Characters of a description that is parsed, and of the name of a channel.
MAX_METADATA_BYTES = 2**25
MAX_NAME_LENGTH = 40
# A tile may be larger than its image, up to this number of pixels.
MAX_TILE_PIXELS = 4096 * 4096

MINISWHITE, MINISBLACK, RGB, PALETTE, MASK, SEPARATED, YCBCR = range(7)
# Samples of a pixel without extra samples, for each supported PhotometricInterpretation ...
COLOURS = {MINISWHITE: 1, MINISBLACK: 1, RGB: 3, PALETTE: 1, SEPARATED: 4, YCBCR: 3}
# ... and names of unsupported ones, for error messages.
UNSUPPORTED_PHOTOMETRICS = {
    4: "a mask",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "the raw mosaic of a camera",
    32844: "LogL",
    32845: "LogLuv",
    34892: "the raw data of a camera",
}
JPEG = 7
JPEG2000 = (33003, 33004, 33005, 34712)
PNG, WEBP = 34933, (50001, 34927)
# NONE, the fax codes, LZW, JPEG, Deflate, PackBits, JPEG 2000, LZMA, PNG, ZSTD, WebP.
COMPRESSIONS = {
    1, 2, 3, 4, 5, JPEG, 8, 32946, 32773, *JPEG2000, 34925, PNG, 50000, 34926, *WEBP
}  # fmt: skip
ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA = 1, 2

ORIENTATION_TAG = 274
PHOTOMETRIC_TAG = 262
INK_SET_TAG = 332
METAMORPH_TAG = 33629  # UIC2: number of z-planes
LSM_TAG = 34412

# Tags that the decoding needs; one that cannot be read means damage.
IMAGE_TAGS = {
    254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325,
    332, 338, 339, 347, 32997, 32998,
}  # fmt: skip
# Those of them that hold a single integer.
SINGLE_TAGS = {254, 256, 257, 259, 262, 266, 274, 277, 284, 317, 322, 323, 332, 32997, 32998}
INTEGER_TYPES = {3, 4, 8, 9, 13, 16, 17, 18}
# The description, which may hold axes, and SubIFDs.
DESCRIPTION_TAGS = {270, 330}
SEGMENT_TAGS = {273, 279, 324, 325}
# Tags whose values tifffile reads at once.
READ_TAGS = IMAGE_TAGS | {270, 282, 283, 305, 330, 513, 514, 530, 33628, 42113, 50838, 50839}
TYPE_BYTES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8,
    17: 8, 18: 8,
}  # fmt: skip


def damage_error(name: str, reason: str) -> ImageError:
    """Return the error of a damaged file."""
    return ImageError(
        f"{name}: the file is damaged or not an image ({reason}); export it again as PNG or TIFF"
    )

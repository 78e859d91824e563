"""Finds the typefaces of this machine and tells print from handwriting.

The more faces, the better the network trained on the pages. The ones that the shipped model learned
from are free: Debian packages, and from npm the packages @fontsource/NAME, of which the files
NAME-latin-400-normal.woff2 lay in ~/.fonts (SIL Open Font License or Apache-2.0). Any others do.

Debian, all named fonts-NAME: adf-baskervald adf-gillius adf-oldania adf-romande averia-serif-gwf
blankenburg breip bwht century-catalogue cmu compagnon courier-prime dancingscript dejavu-core
dkg-handwriting dosis dustin ebgaramond ecolier-court elstob essays1743 fanwood femkeklaver gamaliel
georgewilliams gfs-artemisia gfs-baskerville gfs-didot gfs-didot-classic gfs-gazis gfs-porson
gnutypewriter gotico-antiqua goudybookletter havana humor-sans joscelyn junicode kristi lato
levien-typoscript liberation lindenhill linuxlibertine oldstandard prociono roboto-hinted rufscript
sjfonts texgyre triod-postnaja vollkorn.

npm: abril-fatface alfa-slab-one alex-brush allura annie-use-your-telescope architects-daughter
bad-script birthstone bodoni-moda caveat caveat-brush cedarville-cursive condiment cookie corinthia
cormorant-garamond courgette covered-by-your-grace damion delicious-handrawn delius ephesis gaegu
gloria-hallelujah gochi-hand great-vibes handlee herr-von-muellerhoff homemade-apple im-fell-english
indie-flower italianno kalam league-gothic libre-caslon-text licorice liu-jian-mao-cao long-cang
mansalva marck-script medievalsharp monsieur-la-doulaise montecarlo mr-de-haviland ms-madi
nanum-brush-script nanum-pen-script neucha old-standard-tt oooh-baby parisienne patrick-hand
permanent-marker pinyon-script reenie-beanie rochester rock-salt sacramento satisfy schoolbell
shadows-into-light short-stack smooch special-elite sriracha sue-ellen-francisco swanky-and-moo-moo
tangerine the-girl-next-door twinkle-star uncial-antiqua unifrakturmaguntia vibur whisper yellowtail
zen-kurenaido.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from research.pages.words import PROBES
from research.rng import Rng

__all__ = ["FontFace", "FontLibrary"]

_FOLDERS = (
    Path("/usr/share/fonts"),
    Path("/usr/share/texmf/fonts/opentype"),
    Path("/usr/local/share/fonts"),
    Path.home() / ".fonts",
    Path.home() / ".local/share/fonts",
    Path("/Library/Fonts"),
    Path("/System/Library/Fonts"),
    Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts",
)
_HANDWRITING = re.compile(
    "alexbrush|allura|annieuse|architectsdaughter|badscript|becausewe|birthstone|bradley|breip|"
    "caveat|cedarville|condiment|cookie|corinthia|courgette|coveredbyyourgrace|damion|dancing|"
    "delicioushand|delius|dkg|ecolier|ephesis|femke|gaegu|gazis|gloriahallelujah|gochihand|"
    "greatvibes|handlee|herrvon|homemadeapple|humor|indie|italianno|joscelyn|kalam|kristi|"
    "licorice|liujian|longcang|mansalva|marckscript|monsieur|montecarlo|mrdehaviland|msmadi|"
    "nanumbrush|nanumpen|neucha|ooohbaby|parisienne|patrickhand|permanentmarker|pinyon|reenie|"
    "rochester|rocksalt|rufscript|sacramento|satisfy|schoolbell|segoescript|shadowsinto|"
    "shortstack|smooch|sriracha|sueellen|swanky|tangerine|thegirlnextdoor|twinklestar|typoscript|"
    "vibur|whisper|yellowtail|zenkurenaido"
)
# Neither print nor pen, or not letters: labels would teach the network to guess.
_AMBIGUOUS = re.compile(
    "chancery|chorus|dingbat|emoji|initials|isabella|kaushan|keyboard|klee|lastresort|lobster|"
    "mathex|ornament|script|symbol|unicase|z003"
)


@dataclass(frozen=True)
class FontFace:
    """One font file; ``path`` is None for the face built into Pillow."""

    path: Path | None
    family: str
    bold: bool
    handwritten: bool
    scripts: frozenset[str]

    def load(self, size: float, complex_script: bool = False) -> ImageFont.FreeTypeFont:
        """The face at ``size`` pixels per em; complex scripts need Pillow's Raqm layout."""
        return _load(self.path, max(4, round(size)), complex_script)


@lru_cache(maxsize=512)
def _load(path: Path | None, size: int, complex_script: bool) -> ImageFont.FreeTypeFont:
    if path is None:
        font = ImageFont.load_default(size)
        if not isinstance(font, ImageFont.FreeTypeFont):
            raise ValueError("Pillow: expected a build with FreeType; reinstall the pillow wheel")
        return font
    layout = ImageFont.Layout.RAQM if complex_script else ImageFont.Layout.BASIC
    return ImageFont.truetype(str(path), size, layout_engine=layout)


def _glyph(font: ImageFont.FreeTypeFont, character: str) -> bytes:
    image = Image.new("L", (40, 40))
    ImageDraw.Draw(image).text((8, 4), character, 255, font)
    return image.tobytes()


def _draws(font: ImageFont.FreeTypeFont, characters: str) -> bool:
    """Whether every character has a glyph that is neither blank nor the replacement box."""
    missing = {_glyph(font, "\U0010fffe"), _glyph(font, "\ue83a"), bytes(1600)}
    return not any(_glyph(font, character) in missing for character in characters)


def _face(path: Path | None) -> FontFace | None:
    """Describe a font file, or None if it is unreadable, ambiguous or without Latin letters."""
    try:
        font = _load(path, 20, False)
        scripts = frozenset(name for name, probe in PROBES.items() if _draws(font, probe))
    except (OSError, ValueError):
        return None
    family, style = (part or "" for part in font.getname())
    name = f"{path.name if path else ''} {family}".lower().replace(" ", "").replace("-", "")
    handwritten = _HANDWRITING.search(name) is not None
    if not scripts or (not handwritten and _AMBIGUOUS.search(name)):
        return None
    bold = any(mark in style.lower() for mark in ("bold", "black", "heavy"))
    return FontFace(path, family, bold, handwritten, scripts)


@dataclass(frozen=True)
class FontLibrary:
    """The faces pages are set in, in a fixed order.

    Raises:
        ValueError: if no printed face draws Latin letters.
    """

    faces: tuple[FontFace, ...]

    def __post_init__(self) -> None:
        if not self.having("latin"):
            raise ValueError(
                f"faces: expected at least one printed Latin face, got {len(self.faces)} faces; "
                "use FontLibrary.find()"
            )

    @classmethod
    def find(cls, folders: Iterable[Path] = _FOLDERS) -> FontLibrary:
        """Read every TTF, OTF, TTC and WOFF2 file under ``folders``, and Pillow's own face."""
        paths = sorted(
            path
            for folder in folders
            if folder.is_dir()
            for path in folder.rglob("*")
            if path.suffix.lower() in {".ttf", ".otf", ".ttc", ".woff2"}
        )
        faces = (_face(path) for path in (None, *paths))
        return cls(tuple(face for face in faces if face is not None))

    def having(self, script: str, handwritten: bool = False) -> tuple[FontFace, ...]:
        """The faces that draw a script."""
        return tuple(
            face
            for face in self.faces
            if script in face.scripts and face.handwritten == handwritten
        )

    def choose(self, rng: Rng, script: str, handwritten: bool = False) -> FontFace | None:
        """A face for a script, every family equally likely; None if there is none."""
        faces = self.having(script, handwritten)
        if not faces:
            return None
        family = rng.pick(sorted({face.family for face in faces}))
        return rng.pick([face for face in faces if face.family == family])

from __future__ import annotations

import pytest

from fivefold.train.builder.languages import translated


@pytest.mark.parametrize(
    ("lang", "text", "english", "whether"),
    [
        ("en", "Whatever it is", "", True),
        ("ru", "Открыть в LibreOffice Writer", "Open in LibreOffice Writer", True),
        ("ru", "Aligns the left edges of the objects", "", False),
        ("ja", "LibreOffice", "LibreOffice", True),
        ("ko", "DefCur Statement 문", "", False),
        ("zh", "在 LibreOffice Math 中打开公式编辑器", "", True),
        ("uk", "Абзац: Chapter Numbering Level", "Paragraph: Chapter Numbering Level", False),
        ("de", "Returns the stream of the file that you have opened before", "", False),
        ("de", "Gibt den Strom der Datei zurück, die Sie zuvor geöffnet haben", "", True),
        ("fr", "The Dark Side of the Moon", "", True),
        ("nl", "De stand is aan. Bluetooth is uit wanneer de stand aan is.", "", True),
        ("sv", "Skift Ctrl Alt R", "Shift Ctrl Alt R", False),
        ("da", "Filter er i brug", "Filter is in use", True),
        ("es", "Taxi", "Taxi", True),
    ],
)
def test_is_it_in_its_language(lang: str, text: str, english: str, whether: bool) -> None:
    assert translated(lang, text, english) is whether

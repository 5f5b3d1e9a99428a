"""WordNet database files become synset names."""

from __future__ import annotations

from pathlib import Path

import pytest

from wit_builder.errors import QueryListError
from wit_builder.queries import wordnet

LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by  \n"
DOG = "02084071 05 n 03 dog 0 domestic_dog 0 Canis_familiaris 0 001 @ 02083346 n 0000 | a pet  \n"
GALORE = "00014358 00 s 02 abounding 0 galore(ip) 0 001 & 00013887 a 0000 | in abundance  \n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A database of one noun and one adjective synset."""
    for file in wordnet.FILES:
        (tmp_path / file).write_text(LICENCE)
    (tmp_path / "data.noun").write_text(LICENCE + DOG)
    (tmp_path / "data.adj").write_text(LICENCE + GALORE)
    return tmp_path


def test_first_names(folder):
    """The first lemma of each synset is its name, and the licence is none."""
    assert wordnet.names(str(folder), "first") == ["dog", "abounding"]


def test_all_names(folder):
    """All lemmas come with spaces for underscores and without adjective markers."""
    names = wordnet.names(str(folder), "all")
    assert names == ["dog", "domestic dog", "Canis familiaris", "abounding", "galore"]


def test_lemma_count_is_hexadecimal(folder):
    """A synset of sixteen lemmas, written 10, has sixteen names."""
    words = " ".join(f"w{i} 0" for i in range(16))
    (folder / "data.noun").write_text(f"00000001 03 n 10 {words} 000 | many  \n")
    assert len(wordnet.names(str(folder), "all")) == 16 + 2


def test_missing_file(folder):
    """A missing file is named, with the recipe key to correct."""
    (folder / "data.verb").unlink()
    with pytest.raises(QueryListError, match=r"data\.verb\].*queries\.wordnet\.path"):
        wordnet.names(str(folder))


@pytest.mark.parametrize(
    "line",
    [
        "not a synset",
        "02084071 05 n zz dog 0 000 | no number of lemmas",
        "02084071 05 n 03 dog 0 | fewer lemmas than it says",
        "02084071 05 n 00 | none",
        "02084071 05 n 01 d\N{LATIN SMALL LETTER O WITH DIAERESIS}g 0 000 | not ASCII",
        DOG[:40],
    ],
)
def test_malformed_line(folder, line):
    """A line that is no synset is named by file and number."""
    (folder / "data.noun").write_text(LICENCE + DOG + line + "\n")
    with pytest.raises(QueryListError, match=r"data\.noun, line 3\]"):
        wordnet.names(str(folder), "all")


def test_real_wordnet(data_dir):
    """WordNet 3.0 has 117,659 synsets, the first of them "entity"."""
    names = wordnet.names(str(data_dir / "wordnet"))
    assert len(names) == 117_659
    assert names[0] == "entity"
    assert len(wordnet.names(str(data_dir / "wordnet"), "all")) == 206_978

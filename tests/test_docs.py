"""The docs say what the code does: links, commands, recipes and snippets are held to it."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
from cyclopts import CycloptsError

from wit_builder import recipe, reference, sections
from wit_builder.cli import app
from wit_train.config import TrainRecipe

REPOSITORY = Path(__file__).parent.parent
ROOMS = ("docs", "queries", "shards", "train", "benchmarks")
PAGES = sorted(REPOSITORY.glob("*.md")) + sorted(
    page for room in ROOMS for page in (REPOSITORY / room).rglob("*.md")
)
GENERATED = {
    REPOSITORY / "docs" / name for name in ("cli.md", "recipe.md", "tables.md", "train-recipe.md")
}
WRITTEN = [page for page in PAGES if page not in GENERATED]

_BLOCK = re.compile(r"^```(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(\s*([^)\s]+)\s*\)")
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


class Snippet(NamedTuple):
    """A fenced block of a page: the words after the fence, and the text."""

    page: Path
    marks: list[str]
    text: str


def name(thing: Path | Snippet) -> str:
    """Return a test's name for a page or a snippet: where to look when it fails."""
    if isinstance(thing, Path):
        return str(thing.relative_to(REPOSITORY))
    return f"{name(thing.page)}: {thing.text.strip().splitlines()[0]}"


def snippets(language: str) -> list[Snippet]:
    found = [
        Snippet(page, marks.split(), text)
        for page in WRITTEN
        for marks, text in _BLOCK.findall(page.read_text())
    ]
    return [snippet for snippet in found if snippet.marks[:1] == [language]]


def commands() -> dict[str, list[str]]:
    """Return every command with its subcommands."""
    tops = [command for command in app if not command.startswith("-")]
    return {top: [sub for sub in app[top] if not sub.startswith("-")] for top in tops}


def command_lines(page: Path) -> list[str]:
    """Return the lines of a page's blocks, fenced or indented, that call ``wit``."""
    text = re.sub(r"\\\n *", "", page.read_text())
    return [line.strip() for line in re.findall(r"^(?: {4})?(wit .*)$", text, re.MULTILINE)]


# --- generated pages --------------------------------------------------------


@pytest.mark.parametrize("page", sorted(GENERATED), ids=name)
def test_generated_page_is_current(page):
    """A generated page is what ``make docs`` would write now."""
    assert page.read_text() == reference.pages()[page.name], "run `make docs`"


def test_every_generated_page_is_tested():
    """No page is generated but those this module knows."""
    assert {page.name for page in GENERATED} == set(reference.pages())


def test_every_command_has_its_heading():
    """The reference has a heading for every command and subcommand."""
    headings = _HEADING.findall((REPOSITORY / "docs" / "cli.md").read_text())
    for command, subcommands in commands().items():
        assert f"wit {command}" in headings
        assert all(f"wit {command} {sub}" in headings for sub in subcommands)


def test_every_key_and_column_is_explained():
    """No recipe key and no column of a table is without its explanation."""
    for page in ("recipe.md", "tables.md"):
        rows = re.findall(r"^\| `.*\|$", (REPOSITORY / "docs" / page).read_text(), re.MULTILINE)
        assert rows
        assert [row for row in rows if not row.split("|")[-2].strip()] == []
    text = (REPOSITORY / "docs/train-recipe.md").read_text()
    rows = re.findall(r"^\| `.*\|$", text, re.MULTILINE)
    assert rows
    assert [row for row in rows if not row.split("|")[-3].strip()] == []


# --- links ------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    text = _BLOCK.sub("", page.read_text())
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(text))
    return {heading.strip().replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_resolve(page):
    """A link within the repository leads to a file, and to a heading of it where it names one."""
    for link in _LINK.findall(_BLOCK.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_of_docs_is_linked_from_its_index():
    """``docs/index.md`` leads to every page of its folder, and so does that of the decisions."""
    for index in ("docs/index.md", "docs/decisions/README.md"):
        page = REPOSITORY / index
        linked = {(page.parent / link).resolve() for link in _LINK.findall(page.read_text())}
        assert set(page.parent.glob("*.md")) - {page} <= linked


# --- commands ---------------------------------------------------------------


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_command_lines_parse(page):
    """A command line in a block is one that the program takes, options included."""
    for line in command_lines(page):
        words = shlex.split(line, comments=True)[1:]
        try:
            app.parse_args(words, exit_on_error=False, print_error=False)
        except CycloptsError as error:
            pytest.fail(f"{line}: {error}")


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_commands_named_in_prose_exist(page):
    """What stands in prose as a command of ``wit`` or a target of ``make`` exists."""
    targets = re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for span in _SPAN.findall(_BLOCK.sub("", page.read_text())):
        words = span.split()
        if words[:1] == ["wit"] and len(words) > 1:
            assert words[1] in commands(), span
            subcommands = commands()[words[1]]
            assert not subcommands or words[2:3] == [] or words[2] in subcommands, span
        if words[:1] == ["make"] and len(words) > 1:
            assert words[1] in targets, span


# --- snippets ---------------------------------------------------------------


@pytest.mark.parametrize("snippet", snippets("toml"), ids=name)
def test_toml_snippet_is_a_recipe(snippet):
    """A recipe in the docs is one that the program takes; ``toml train`` marks the trainer's."""
    kind = TrainRecipe if "train" in snippet.marks else sections.Recipe
    recipe.convert(tomllib.loads(snippet.text), kind, where=name(snippet))


@pytest.mark.parametrize("snippet", snippets("python"), ids=name)
def test_python_snippet_runs(snippet):
    """A snippet runs in the repository's folder; of one that needs a bucket, the imports do."""
    code = snippet.text
    if "s3://" in code:
        imports = [n for n in ast.parse(code).body if isinstance(n, ast.Import | ast.ImportFrom)]
        code = "\n".join(map(ast.unparse, imports))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_glossary_is_in_order():
    """The glossary's words stand by the alphabet, each once."""
    text = (REPOSITORY / "docs" / "glossary.md").read_text()
    words = [word.lower() for word in re.findall(r"^\| \*\*(.*?)\*\* \|", text, re.MULTILINE)]
    assert words == sorted(set(words))

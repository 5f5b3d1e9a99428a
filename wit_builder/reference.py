"""``python -m wit_builder.reference docs``: the pages of the docs that are made from the code.

``docs/cli.md`` from the program, ``docs/tables.md`` from the schemas, ``docs/recipe.md`` from the
structs of a recipe. A test holds them to what would be made now.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from wit_builder import sections, tables
from wit_builder.cli import app

_MADE = "<!-- made by `make docs`; edit the code instead -->\n\n"
_KINDS = (
    "`Positive` and `Natural` are whole numbers from 1 and from 0, `Seconds` a number above 0, "
    "`Share` one from 0 to 1, `Texts` a list of one text or more; `ge` and `le` are the least and "
    "the greatest value."
)


def pages() -> dict[str, str]:
    """Return the text of every generated page, by file name."""
    return {"cli.md": cli_page(), "tables.md": tables_page(), "recipe.md": recipe_page()}


def cli_page() -> str:
    """Return the reference of every command."""
    # cyclopts puts the running program's name into usage lines: it shall be the same whoever asks
    running, sys.argv = sys.argv, ["wit"]
    try:
        return _MADE + app.generate_docs().rstrip() + "\n"
    finally:
        sys.argv = running


def tables_page() -> str:
    """Return every table's columns, and every reason for which a pair can be dropped."""
    parts = ["# Tables", "Every table on disk, column by column (`wit_builder.tables`)."]
    for name, schema in tables.ALL.items():
        rows = [f"| `{c}` | {kind} | {doc} |" for c, kind, doc in tables.describe(schema)]
        parts += [
            f"## {name}",
            "\n".join(["| column | type | what |", "| --- | --- | --- |", *rows]),
        ]
    parts += ["## Reasons", "A dropped pair's reason is one of these:"]
    parts += [", ".join(f"`{reason}`" for reason in tables.Reason) + "."]
    return _MADE + "\n\n".join(parts) + "\n"


def recipe_page() -> str:
    """Return every key of a recipe with its type, default and meaning."""
    tree = ast.parse(inspect.getsource(sections))
    parts = ["# Recipe keys", "What `wit build RECIPE` takes, section by section.", _KINDS]
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    shared = {"_Section", "ArchiveSource"}
    for name, node in classes.items():
        bases = [ast.unparse(base) for base in node.bases]
        if shared.isdisjoint(bases) or name in shared:
            continue
        inherited = [classes[base] for base in bases]
        keys = _keys([*inherited, node])
        parts += [f"## {_title(node)}", ast.get_docstring(node) or "", keys]
    return _MADE + "\n\n".join(parts) + "\n"


def _title(node: ast.ClassDef) -> str:
    tag = next((k.value for k in node.keywords if k.arg == "tag"), None)
    if isinstance(tag, ast.Constant) and isinstance(tag.value, str):
        return f'`[[crawl.sources]]` with `kind = "{tag.value}"`'
    known = {"Recipe": "the top", "WordNetSource": "`[queries.wordnet]`"}
    known["WikipediaSource"] = "`[queries.wikipedia]`"
    return known.get(node.name, f"`[{node.name.removesuffix('Section').lower()}]`")


def _keys(nodes: list[ast.ClassDef]) -> str:
    rows = [
        f"| `{name}` | `{kind}` | {default} | {doc} |"
        for node in nodes
        for name, kind, default, doc in _fields(node)
    ]
    return "\n".join(["| key | type | default | what |", "| --- | --- | --- | --- |", *rows])


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str, str, str]]:
    """Yield (name, type, default, documentation) of a struct's fields that a recipe spells out."""
    for field, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or "Section" in ast.unparse(field.annotation):
            continue
        default = f"`{_default(field.value)}`" if field.value else "required"
        doc = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            doc = " ".join(str(after.value.value).split())
        kind = ast.unparse(field.annotation).replace("|", "or")
        yield ast.unparse(field.target), kind, default, doc


def _default(value: ast.expr) -> str:
    """Return a default as it stands in the code; of a list's factory, the list."""
    text = ast.unparse(value)
    factory = re.fullmatch(r"msgspec\.field\(default_factory=(\[.*\])\.copy\)", text)
    return factory[1] if factory else text


def main(folder: str) -> None:
    """Write the pages into a folder."""
    for name, text in pages().items():
        (Path(folder) / name).write_text(text)


if __name__ == "__main__":
    main(sys.argv[1])

"""``python -m wit_builder.reference docs``: the pages of the docs that are made from the code.

``docs/cli.md`` from the program, ``docs/tables.md`` from the schemas, ``docs/recipe.md`` and
``docs/train-recipe.md`` from the structs of a recipe. A test holds them to what would be made now.
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

_CHANGES = (
    "The last column says what a change between a run and its continuation changes: `order`, which "
    "samples make a batch; `maths`, what is computed of them; `free`, neither, but for rounding. "
    "Only free keys change silently; the others need `--allow-change KEY`, and are logged."
)
_TRAINER = Path(__file__).parents[1] / "train/wit_train"
"""Read, not imported: this package does not need the trainer."""
_SECTIONS = {"TrainRecipe": "", "Augment": "data.augment"}
"""Structs of a training recipe whose section is not named as they are."""


def pages() -> dict[str, str]:
    """Return the text of every generated page, by file name."""
    return {
        "cli.md": cli_page(),
        "tables.md": tables_page(),
        "recipe.md": recipe_page(),
        "train-recipe.md": train_recipe_page(),
    }


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


def train_recipe_page() -> str:
    """Return every key of a training recipe, and what a change of it in mid-run changes."""
    tree = ast.parse((_TRAINER / "config.py").read_text())
    decode = ast.parse((_TRAINER / "decode.py").read_text())
    effects = _effects(tree)
    parts = ["# Keys of a training recipe", "What `wit train RECIPE` takes.", _KINDS, _CHANGES]
    classes = [node for node in [*tree.body, *decode.body] if isinstance(node, ast.ClassDef)]
    for node in classes:
        if not node.name.endswith(("Section", "Recipe", "Augment")) or node.name == "_Section":
            continue
        section = _SECTIONS.get(node.name, _section(node))
        title, prefix = (f"`[{section}]`", f"{section}.") if section else ("the top", "")
        rows = [
            f"| `{name}` | `{kind}` | {default} | {doc} | {_effect(prefix + name, effects)} |"
            for name, kind, default, doc in _fields(node)
        ]
        head = "| key | type | default | what | changes |\n| --- | --- | --- | --- | --- |"
        parts += [f"## {title}", ast.get_docstring(node) or "", "\n".join([head, *rows])]
    return _MADE + "\n\n".join(parts) + "\n"


def _effects(tree: ast.Module) -> dict[str, str]:
    found = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "_EFFECTS"
    )
    assert found is not None  # it is a literal there
    return dict(ast.literal_eval(found))


def _effect(key: str, effects: dict[str, str]) -> str:
    """Return the effect of a key: its own, or that of the section it stands in."""
    return effects.get(key) or _effect(key.rpartition(".")[0], effects)


def _section(node: ast.ClassDef) -> str:
    """Return a section's name, as it stands in a recipe, of its struct's."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", node.name.removesuffix("Section")).lower()


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

"""A small web, its WARC files, and a recipe that builds a data set from them in seconds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from wit_builder import pipeline, recipe, sections, storage, units
from wit_builder.demo import site, warc
from wit_builder.demo.web import DemoWeb
from wit_builder.runners import make_runner

CONCEPTS = 24
CAP = 3
RECIPE = """
name = "small"
seed = 7
buckets = 3

[queries]
numbers = 0
custom = ["queries.txt"]

[balance]
cap_per_query = {cap}

[fetch]
deadline_s = 3.0
per_domain_interval_s = 0.0
max_body_bytes = 1_000_000
part_s = 0.5

[image]
size_px = 96
min_side_px = 32

[pack]
samples_per_shard = 20
max_block_bytes = 65_536

[[crawl.sources]]
kind = "warc"
paths = ["*.warc.gz"]

[[crawl.sources]]
kind = "site"
seeds = {seeds}
"""


@dataclass(frozen=True)
class SmallWeb:
    """The recipe's place, and the running web that it crawls."""

    recipe: str
    web: DemoWeb

    @property
    def loopback(self) -> dict[str, str]:
        return {"*.test": f"127.0.0.1:{self.web.port}"}

    def build(self, root: str, workers: int = 1, until: pipeline.Until = "report") -> None:
        """Build into a folder, in this process."""
        runner = make_runner(workers)
        try:
            run = units.Run(root, runner)
            pipeline.Build(recipe.read(self.recipe), run, self.loopback)(until)
        finally:
            runner.close()

    def command(self, root: str) -> list[str]:
        """The arguments of ``wit`` that do the same."""
        loopback = next(iter(self.loopback.items()))
        return ["build", self.recipe, "--out", root, "--loopback", "=".join(loopback)]


def write_recipe(folder: Path, plan: site.Plan) -> str:
    """Write WARC files, a query list and a recipe into a folder; return the recipe's place."""
    warc.write_warcs(str(folder), plan)
    words = [concept.name for concept in plan.concepts]
    (folder / "queries.txt").write_text("\n".join([*words, "drawing", "picture"]))
    place = folder / "recipe.toml"
    place.write_text(RECIPE.format(seeds=site.seeds(), cap=CAP))
    assert recipe.load(str(place), sections.Recipe)
    return str(place)


def shards_of(root: str, generation: str = "g0") -> dict[str, str]:
    """Return the digest of every file of a generation's data set."""
    folder = storage.join(root, generation, "shards")
    files = {storage.name_of(url): storage.read_bytes(url) for url in storage.list_files(folder)}
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}

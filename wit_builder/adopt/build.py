"""Composes the taking over of a download: count, take pairs, count shards, write them, list them.

The data set is that of a build without queries: ``ROOT/g0/shards``. What was left out stands in
``ROOT/g0/rejected``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from wit_builder import leftovers, lock, storage
from wit_builder import recipe as recipes
from wit_builder.adopt import download, pairs, shards
from wit_builder.errors import RecipeError, ShardFormatError
from wit_builder.pack import shard
from wit_builder.pack.plan import Plan
from wit_builder.pack.shard import ShardJob
from wit_builder.sections import Recipe
from wit_builder.shards.layout import MAX_SAMPLES
from wit_builder.stages import Stages, together
from wit_builder.units import Marker, Run, Stage, Unit, total

_KEYS = ("seed", "image", "pack")
_GENERATION = "g0"


def settings(overrides: Sequence[str] = ()) -> Recipe:
    """Return the settings by which a download is packed: pictures keep their sizes.

    Args:
        overrides: ``key.path=value`` of ``seed``, ``image`` or ``pack``.

    Raises:
        RecipeError: another key, or a wrong value.
    """
    for override in overrides:
        key = override.partition("=")[0].partition(".")[0].strip()
        if key not in _KEYS:
            raise RecipeError(
                f"{key} does not matter to a download that is packed",
                where=f"--set {override}",
                fix=f"what can be set: {', '.join(_KEYS)}",
            )
    return recipes.overridden({"image": {"mode": "no"}}, Recipe, overrides, where="--set")


def build(folder: str, run: Run, recipe: Recipe) -> dict[str, int]:
    """Pack what img2dataset downloaded into ``ROOT/g0/shards``, and return the counts.

    Every sample with a URL, a text and a picture that can be decoded becomes a pair, once. What is
    done already is not done again. The same download gives the same bytes.

    Args:
        folder: img2dataset's output folder.
        run: where, and who does the work.
        recipe: its ``seed``, ``image`` and ``pack`` count.

    Raises:
        ShardFormatError: the folder is no download, a shard is not complete, or no pair is left.
        RecipeError: the run's folder is that of a build.
        UnitsFailedError: units failed after their retries.
    """
    if storage.exists(storage.join(run.root, "recipe.toml")):
        raise RecipeError(
            "this is the folder of a build, whose shards would be replaced",
            where=storage.redact(run.root),
            fix="name another folder",
        )
    with lock.alone(run.root):
        leftovers.sweep(run.root)
        return _Adopting(folder, run, recipe).counts()


class _Adopting:
    """The stages of one taking over."""

    def __init__(self, folder: str, run: Run, recipe: Recipe) -> None:
        self._stages = Stages(run, _GENERATION)
        self._folder, self._recipe = folder, recipe
        self._found = download.shards(folder)
        self._identities = [found.identities() for found in self._found]

    def counts(self) -> dict[str, int]:
        """Do all that is not done, and return what was counted."""
        listed = total(self._list())["downloaded"]
        if not 0 < listed <= MAX_SAMPLES:
            raise ShardFormatError(
                f"{listed:,} pictures were downloaded, where 1 to {MAX_SAMPLES:,} can be packed",
                where=storage.redact(self._folder),
                fix="see error_message in its tables, or pack the download in parts",
            )
        count = -(-listed // self._recipe.pack.samples_per_shard)
        taken = self._take(count)
        counted = self._count(taken, count)
        packed = self._pack(taken, counted)
        self._finish(packed)
        self._stages.retire_others()
        again = {name: n for name, n in total(counted).items() if n}
        return {**total(taken), **again, **total(packed), "shards": count}

    def _list(self) -> list[Marker]:
        units = [
            Unit(f"{number:05d}", inputs, pairs.ListJob(found))
            for number, (found, inputs) in enumerate(
                zip(self._found, self._identities, strict=True)
            )
        ]
        return self._stages.do(Stage("adopt-list", pairs.run_list, units))

    def _take(self, count: int) -> list[Marker]:
        units = []
        for number, found in enumerate(self._found):
            name = f"{number:05d}"
            job = pairs.PairsJob(
                shard=found,
                image=self._recipe.image,
                seed=self._recipe.seed,
                shards=count,
                pairs=self._stages.place("exchange", "adopted", f"{name}.arrow"),
                uids=self._stages.place("exchange", "adopted", f"{name}.uids"),
                rejections=self._stages.place("rejected", f"adopt-{name}.parquet"),
            )
            units.append(Unit(name, [found.name, *self._identities[number]], job))
        settings = [self._recipe.image, self._recipe.seed, count]
        return self._stages.do(Stage("adopt", pairs.run, units, settings))

    def _count(self, taken: list[Marker], count: int) -> list[Marker]:
        files, inputs = self._stages.exchanged("adopt-count", taken, count, ".uids")
        units = []
        for first in range(0, count, shards.SHARDS_AT_ONCE):
            name = f"{first:06d}"
            some = min(shards.SHARDS_AT_ONCE, count - first)
            out = self._stages.place("counted", f"{name}.parquet")
            units.append(Unit(name, inputs, shards.CountJob(files, first, some, out)))
        return self._stages.do(Stage("adopt-count", shards.run_count, units, count))

    def _pack(self, taken: list[Marker], counted: list[Marker]) -> list[Marker]:
        tables = map(storage.read_parquet, self._stages.urls(counted, ".parquet"))
        plan = Plan(list(chain.from_iterable(t["samples"].to_pylist() for t in tables)))
        if not sum(plan.samples):
            raise ShardFormatError(
                "no pair is left: no sample has a URL, a text and a sound picture",
                where=storage.redact(self._folder),
                fix=f"see {storage.redact(self._stages.place('rejected'))}; "
                "texts need img2dataset's caption_col",
            )
        files, inputs = self._stages.exchanged("adopt", taken, plan.shards)
        units = []
        for number, (first, samples) in enumerate(zip(plan.first_keys, plan.samples, strict=True)):
            job = ShardJob(
                sources=files,
                bucket=number,
                shard=number,
                first_key=first,
                samples=samples,
                folder=self._stages.place("shards"),
                max_block_bytes=self._recipe.pack.max_block_bytes,
            )
            units.append(Unit(f"{number:06d}", [*inputs, *together(counted)], job))
        stage = Stage("pack", shards.run_pack, units, [self._recipe.pack, self._recipe.seed])
        if not self._stages.is_done(stage):
            # no manifest may stand beside shards that it does not describe
            self._stages.retire("pack-finish")
        return self._stages.do(stage)

    def _finish(self, packed: list[Marker]) -> None:
        section = self._recipe.pack
        job = shard.FinishJob(
            folder=self._stages.place("shards"),
            shards=len(packed),
            generation=_GENERATION,
            recipe=recipes.digest([self._recipe.image, section, self._recipe.seed]),
            max_block_bytes=section.max_block_bytes,
        )
        unit = Unit("dataset", [marker.identity for marker in packed], job)
        self._stages.do_one(Stage("pack-finish", shard.finish, [unit], job.recipe))

"""The stages of one generation: how they are done, where they write, what they have done so far."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from wit_builder import exchange, storage
from wit_builder import recipe as recipes
from wit_builder.units import Marker, Run, Stage, Unit


@dataclass
class Stages:
    """Does stages of one generation, and remembers the markers of all their units.

    Attributes:
        run: where, and who does the work.
        name: of the generation: its folder.
    """

    run: Run
    name: str
    markers: list[Marker] = field(default_factory=list, init=False, repr=False)
    """Of every unit of this recipe that was done, or found done, so far."""
    used: set[str] = field(default_factory=set, init=False, repr=False)
    """Names of the stages that this recipe has, so far."""
    _step: str = field(default="", init=False)

    def place(self, *parts: str) -> str:
        """Return a place in the generation's folder."""
        return storage.join(self.run.root, self.name, *parts)

    def do(self, stage: Stage) -> list[Marker]:
        """Do what is not done of a stage, and return all its markers, in the order of its units.

        Raises:
            UnitsFailedError: units failed after their retries.
        """
        later = self.name.startswith("g") and self.name != "g0"
        step = f"{self._step or stage.name} of {self.name}" if later else self._step
        markers = self.run.do(replace(stage, step=step), self.name)
        self.markers += markers
        self.used.add(stage.name)
        return markers

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Let people see the stages done meanwhile as one."""
        before, self._step = self._step, name
        try:
            yield
        finally:
            self._step = before

    def do_one(self, stage: Stage) -> Marker:
        """Do a stage of one unit, and return its marker.

        Raises:
            UnitsFailedError: it failed after its retries.
        """
        [marker] = self.do(stage)
        return marker

    def is_done(self, stage: Stage) -> bool:
        """Return whether nothing is left to do of a stage."""
        return self.run.is_done(stage, self.name)

    def retire(self, stage: str) -> None:
        """Remove what a stage left behind that this recipe does not have any more."""
        self.run.retire(stage, self.name)

    def urls(self, markers: Sequence[Marker], suffix: str) -> list[str]:
        """Return the places of the outputs with a suffix."""
        outputs = (o.url for m in markers for o in m.outputs)
        return [storage.join(self.run.root, url) for url in outputs if url.endswith(suffix)]

    def exchanged(
        self, stage: str, markers: list[Marker], buckets: int, suffix: str = ".arrow"
    ) -> tuple[list[str], list[str]]:
        """Return the exchange files of a stage that has run, and their identity as inputs.

        Where files times buckets are too many, files are merged in groups first.
        """
        files = self.urls(markers, suffix)
        group = -(-len(files) * buckets // exchange.MAX_SLICES)
        if group > 1:
            units = []
            for number, at in enumerate(range(0, len(files), group)):
                out = self.place("exchange", f"{stage}-merged", f"{number:05d}{suffix}")
                job = exchange.MergeJob(files[at : at + group], out)
                units.append(Unit(f"{number:05d}", together(markers[at : at + group]), job))
            markers = self.do(Stage(f"{stage}-merge", exchange.run_merge, units))
            files = self.urls(markers, suffix)
        else:
            self.retire(f"{stage}-merge")
        return files, together(markers)

    def retire_others(self) -> None:
        """Remove what stages have left behind that this recipe does not have any more."""
        for stage in storage.list_folders(storage.join(self.run.root, "units", self.name)):
            if stage not in self.used:
                self.retire(stage)


def together(markers: Sequence[Marker]) -> list[str]:
    """Return one identity for all of them: what a unit names that reads from every one."""
    return [recipes.digest([marker.identity for marker in markers])]

"""``wit export``: loaded by the ``wit`` program when it is asked for."""

from __future__ import annotations

import re
import sys
from typing import Annotated

from cyclopts import Parameter

from wit_builder import storage
from wit_builder.errors import TrainingError
from wit_train import licences
from wit_train.commands import need_torch

_SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")


def export(
    run: str,
    *,
    out: str,
    results: str = "",
    data: Annotated[list[str] | None, Parameter(negative=())] = None,
    datasheet: str = "",
    licence: str = "",
    name: str = "",
) -> None:
    """Write a trained model as a folder that open_clip loads and a hub takes, with a model card.

    Args:
        run: folder of a run, or the JSON of one of its checkpoints.
        out: folder for weights, config and card; one with another model in it is refused.
        results: results.json of `wit eval` on the same weights, or its folder; for the card.
        data: folder of the shards, or of the build, that was trained on; may be given several
            times. The card then says how large it is, and the build's datasheet comes along.
        datasheet: URL of the data's datasheet, or a file to copy.
        licence: SPDX identifier of the model's licence, such as Apache-2.0. One that the hub is
            not known to have is taken with a warning.
        name: of the model; by default the run's.
    """
    if licence and not _SPDX.fullmatch(licence):
        raise TrainingError(
            f"no SPDX identifier: {licence!r}", where="--licence", fix="such as Apache-2.0"
        )
    if licence and (doubt := licences.doubt(licence)):
        print(f"warning: --licence: {doubt}", file=sys.stderr)
    need_torch("exporting")
    from wit_train.export import Wishes
    from wit_train.export import export as write

    wishes = Wishes(
        name=name, licence=licence, results=results, data=tuple(data or ()), datasheet=datasheet
    )
    weights = write(run, out, wishes)
    print(f"weights {weights}", file=sys.stderr)
    print(storage.redact(out))

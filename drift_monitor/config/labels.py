"""Labels that come later, and what they are compared with. No I/O."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from drift_monitor.config.sources import LabelSource, sample_of
from drift_monitor.config.tables import SqlSource
from drift_monitor.core.policy import Duration, Model


class Costs(Model):
    """What wrong decisions cost, in any one unit.

    Attributes:
        false_negative: of a case that the model did not see coming.
        false_positive: of a false alarm of the model's.
    """

    false_negative: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    false_positive: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Labels(Model):
    """The truth that arrives later, in a source of its own, and is joined to the predictions by their ids.

    Attributes:
        source: of the labels: an id, the truth, and when it was known (`timestamp`, needed here).
        horizon: how long after its prediction a label still counts.
        threshold: a prediction from here on says yes, where the truth is yes or no.
        costs: of wrong decisions; reported beside the share of them.
    """

    source: LabelSource
    id: Annotated[str | None, Field(min_length=1, description="its column of ids; `columns.id` if absent")] = None
    label: Annotated[
        str | None, Field(min_length=1, description="its column of the truth; `columns.label` if absent")
    ] = None
    horizon: Duration
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    costs: Costs | None = None

    @model_validator(mode="after")
    def _dated(self) -> Self:
        if sample_of(self.source) is not None:
            raise ValueError("labels.source cannot be a sample, which leaves out labels: take `sample` away")
        if isinstance(self.source, SqlSource) and self.source.pushdown is not None:
            raise ValueError("labels.source is joined row by row: take `pushdown` away")
        if self.source.timestamp is None:
            raise ValueError("labels.source needs `timestamp`: the column that says when a label was known")
        return self

"""Which reference a monitor has after its model was retrained: a record beside the versions that were promoted."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import ValidationError

from drift_monitor.core.errors import BadReferenceError
from drift_monitor.core.retraining import Retraining
from drift_monitor.core.types import UtcDatetime, Value, Window

RECORD: Final = "promoted.json"


class Promotion(Value):
    """The version that took the configured reference's place.

    Attributes:
        base: sha256 of the configured reference; with another one configured the promotion is void.
        version: that is in use, of the folder `references/<monitor>` in the state.
        model_version: of the model that was trained on it.
        retraining: that made the model.
        training: the file that it was trained on.
        at: end of the newest window then (event time).
        previous: folder of the version that was in use before.
        trial_until: windows that end before this are compared with `previous` too (event time).
    """

    base: str
    version: str
    model_version: str
    retraining: str
    training: Path
    at: UtcDatetime
    previous: Path
    trial_until: UtcDatetime

    def is_of(self, retraining: Retraining) -> bool:
        """Whether it is what this retraining led to, with the training file that is told of now."""
        return self.retraining == retraining.id and retraining.trained_on in {"", str(self.training)}

    def on_trial(self, window: Window | None) -> bool:
        """Whether a window is to be compared with the version before as well."""
        return window is not None and self.at < window.end <= self.trial_until


def promoted_folder(state: Path, monitor: str) -> Path:
    """Where the versions are that a monitor's retrainings led to."""
    return state / "references" / monitor


def promotion_of(state: Path, monitor: str) -> Promotion | None:
    """The promotion on record; None when there was none.

    Raises:
        BadReferenceError: the record cannot be read: to go on with the old reference would be to guess.
    """
    path = promoted_folder(state, monitor) / RECORD
    try:
        return Promotion.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise BadReferenceError(
            f"{path} cannot be read ({type(error).__name__}): restore it, or delete it to go back to the "
            "configured reference"
        ) from error

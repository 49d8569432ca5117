"""What survives a kill -9 of the server: parameters and number of finished rounds of every step, each file whole.

One safetensors file per training step, replaced after every round; JSON for labelled sites and test results. A folder
belongs to one experiment and refuses to go on with other settings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from cardiac_ct_fm.errors import ConfigError
from cardiac_ct_fm.files import atomic_write, write_json
from recipes.federated_distillation.messages import Arrays
from recipes.federated_distillation.settings import Settings

CHECKPOINT = "checkpoint"
"""Name of the JSON result that holds name and hash of the weights that the experiment began with."""

SECOND_LOOK = "second_look"
"""Name of the file with the second look at points that the weights had that the experiment began with."""

UPDATES = "updates"
"""Name of the JSON result that holds site → updates that it was asked for."""


class State:
    """The breakpoint of one experiment.

    Args:
        folder: made where it does not exist.
        settings: the experiment's.

    Raises:
        ConfigError: the folder holds another experiment.
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        file = folder / "settings.json"
        if file.exists():
            before = Settings.from_dict(json.loads(file.read_text(encoding="utf-8")))
            if before.fingerprint() != settings.fingerprint():
                changed = sorted(k for k, v in vars(settings).items() if getattr(before, k) != v)
                raise ConfigError(
                    f"{folder} holds an experiment with other settings ({', '.join(changed)}); choose another "
                    "--exp-name or remove the folder."
                )
        else:
            write_json(file, settings.to_dict())

    def rounds(self, step: str) -> int:
        """Finished rounds of a training step."""
        path = self._weights(step)
        if not path.exists():
            return 0
        with safe_open(str(path), framework="np") as file:
            return int(file.metadata()["rounds"])

    def has(self, step: str) -> bool:
        """Whether there are parameters of that name."""
        return self._weights(step).exists()

    def load(self, step: str) -> Arrays:
        """Parameters of a training step after its last finished round."""
        parameters: Arrays = load_file(self._weights(step))
        return parameters

    def save(self, step: str, parameters: Arrays, rounds: int) -> None:
        """Replace a step's parameters.

        Raises:
            OutputError: the file system refuses; the round before is still there.
        """
        with atomic_write(self._weights(step)) as temporary:
            tensors = {k: np.ascontiguousarray(v) for k, v in parameters.items()}
            save_file(tensors, temporary, metadata={"format": "pt", "rounds": str(rounds)})

    def read(self, name: str) -> Any:
        """A JSON result; None where there is none yet."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def write(self, name: str, content: Any) -> None:
        """Replace a JSON result.

        Raises:
            OutputError: the file system refuses.
        """
        write_json(self.folder / f"{name}.json", content)

    def _weights(self, step: str) -> Path:
        return self.folder / f"{step}.safetensors"

"""``python train.py task=validate``: check a configuration without training."""

from __future__ import annotations

from altprop.data.errors import DataError
from altprop.training.assembly import assemble, left_out_line
from altprop.training.parts import Parts


def validate(parts: Parts) -> None:
    """Print the directory that the run of a valid configuration would use, and the weights that its weights rule leaves out.

    Writes nothing. The model is built and set up if the data are there and training needs no other process, so that mistakes
    that only show with them are found, too. Raises ``ConfigError`` for these.
    """
    lines = [f"valid: {parts.name}, the run would be in {parts.directory}"]
    if parts.algorithm.capabilities.in_process:
        try:
            assemble(parts)
        except DataError as error:
            lines.append(f"the model was not checked: {error.problems[0].description}")
        else:
            if parts.algorithm.weights.left_out:
                lines.append(left_out_line(parts.algorithm.weights))
        finally:
            parts.algorithm.close()
    print("\n".join(lines))

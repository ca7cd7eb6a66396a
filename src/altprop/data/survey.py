"""``data.py action=check``: what a data set contains and what is wrong with it, file by file."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from altprop.data.base import Data, Split
from altprop.data.errors import DataError
from altprop.data.files.folder import Facts, Listing, class_folders, facts_of, list_images, look_at_images, single_class
from altprop.data.loading.recipes import Crops, streaming_error

T = TypeVar("T")
SHOWN = 10
"""Number of classes, sizes and modes that a line lists."""


@dataclass(frozen=True)
class SplitSurvey:
    """One split.

    Args:
        name: Its name, such as ``train``.
        classes: Images of each class that has any.
        sizes: Images of each size, such as ``32x32``.
        modes: Images of each kind of channels, such as ``RGB``.
    """

    name: str
    classes: Mapping[str, int]
    sizes: Mapping[str, int] = field(default_factory=dict)
    modes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Survey:
    """A data set.

    Args:
        splits: Each split.
        class_names: The classes in the order of their labels.
        errors: What keeps the set from being used: one for each unusable file or folder.
        remarks: What may be a mistake: duplicates, classes that a split lacks.
    """

    splits: Sequence[SplitSurvey]
    class_names: Sequence[str]
    errors: Sequence[DataError]
    remarks: Sequence[str]

    def lines(self) -> list[str]:
        """The splits and the remarks in words, one line each."""
        lines = []
        for split in self.splits:
            images, classes = sum(split.classes.values()), len(split.classes)
            parts = [f"{split.name}: {images:,} images of {classes} {'class' if classes == 1 else 'classes'}"]
            ordered = {name: split.classes[name] for name in self.class_names if name in split.classes}
            parts += [_listed(counts) for counts in (ordered, _by_count(split.sizes), _by_count(split.modes)) if counts]
            lines.append("; ".join(parts))
        return [*lines, *self.remarks]


def survey_folder(folder: Path, splits: Sequence[str], crops: Crops, max_bytes: int, workers: int, *, dali: bool) -> Survey:
    """Look at every image below ``folder``, in ``workers`` threads.

    Args:
        folder: Contains the ``splits``.
        splits: The folders of the training and of the test images.
        crops: The crops that images must be large enough for if they are streamed.
        max_bytes: Images of equal size that take no more than this are not streamed.
        workers: Number of threads.
        dali: Whether DALI decodes streamed images, which cannot convert all of them.
    """
    classes = class_folders(folder / splits[0])
    errors = single_class(folder / splits[0], classes)
    surveys, copies, seen = [], defaultdict(list), []
    for name, view in zip(splits, (crops.view(train=True), crops.view(train=False))):
        listing = list_images(folder / name, classes, errors)
        paths = listing.paths()
        usable: list[tuple[int, Facts]] = []
        results = look_at_images(paths, _facts_and_digest, workers=workers, title=f"checking {name}")
        for index, (path, result) in enumerate(zip(paths, results)):
            if isinstance(result, DataError):
                errors.append(result)
                continue
            facts, digest = result
            usable.append((index, facts))
            copies[digest].append(path)
            seen.append((path, facts, view))
        surveys.append(_survey_of(name, listing, classes, usable))
    sizes = {facts.size for _, facts, _ in seen}
    if len(sizes) > 1 or sum(3 * width * height for width, height in sizes) * len(seen) > max_bytes:
        found = (streaming_error(path, facts, view, dali=dali) for path, facts, view in seen)
        errors += [error for error in found if error is not None]
    remarks = [
        f"the same image {len(paths)} times: {', '.join(_short(path, folder) for path in paths)}" for paths in _groups(copies)
    ]
    return Survey(surveys, classes, errors, [*_missing_classes(surveys, classes), *remarks])


def survey_data(data: Data) -> Survey:
    """Look at every image of ``data``, as it is loaded."""
    splits: dict[str, Split] = {"train": data.train_plain}
    if data.validation is not None:
        splits["validation"] = data.validation
    splits["test"] = data.test
    channels, height, width = data.input_shape
    surveys, copies = [], defaultdict(list)
    for name, split in splits.items():
        counts: Counter[str] = Counter()
        for images, labels in split.batches():
            for image, label in zip(images.cpu().numpy(), labels.tolist()):
                copies[_digest(np.ascontiguousarray(image).tobytes())].append(name)
                counts[data.class_names[label]] += 1
        mode = {1: "gray", 3: "color"}.get(channels, f"{channels} channels")
        total = sum(counts.values())
        surveys.append(SplitSurvey(name, counts, {f"{width}x{height}": total}, {mode: total}))
    repeated: Counter[str] = Counter(" and ".join(dict.fromkeys(names)) for names in _groups(copies))
    remarks = [f"{count:,} images occur more than once in {where}" for where, count in repeated.items()]
    return Survey(surveys, data.class_names, [], [*_missing_classes(surveys, data.class_names), *remarks])


def _survey_of(name: str, listing: Listing, classes: Sequence[str], usable: Sequence[tuple[int, Facts]]) -> SplitSurvey:
    counts = Counter(classes[listing.labels[index]] for index, _ in usable)
    sizes = Counter(f"{facts.size[0]}x{facts.size[1]}" for _, facts in usable)
    return SplitSurvey(name, counts, sizes, Counter(facts.mode for _, facts in usable))


def _facts_and_digest(path: Path) -> tuple[Facts, bytes]:
    facts = facts_of(path)  # first, because it refuses pipes
    return facts, _digest(path.read_bytes())


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _groups(copies: Mapping[bytes, list[T]]) -> Iterable[list[T]]:
    """The places of each content that is in more than one."""
    return (places for places in copies.values() if len(places) > 1)


def _missing_classes(surveys: Sequence[SplitSurvey], classes: Sequence[str]) -> list[str]:
    lines = []
    for survey in surveys:
        missing = [name for name in classes if name not in survey.classes]
        if missing:
            listed = ", ".join(missing[:SHOWN]) + (f", … {len(missing) - SHOWN} more" if len(missing) > SHOWN else "")
            lines.append(f"{survey.name} has no usable image of {len(missing)} of {len(classes)} classes: {listed}")
    return lines


def _by_count(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _listed(counts: Mapping[str, int]) -> str:
    shown = [f"{name} {count:,}" for name, count in list(counts.items())[:SHOWN]]
    return ", ".join(shown) + (f", … {len(counts) - SHOWN} more" if len(counts) > SHOWN else "")


def _short(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()

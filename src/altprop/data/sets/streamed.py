"""The base class of data sets of image files that are decoded as they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le

from altprop.data.base import Data, LoadContext
from altprop.data.files.folder import Listing
from altprop.data.loading.recipes import Crops
from altprop.data.loading.stream import Loader, StreamSplit, check_decoding
from altprop.data.normalization import Normalization
from altprop.data.sets.image_set import ImageSet, warn_of_missing_classes
from altprop.problems import ConfigError, Problem


@dataclass(frozen=True, kw_only=True)
class Streamed(ImageSet):
    """A data set of image files in ``<paths.data>/<folder>/<split>/<class>``.

    Args:
        crops: The crops of training and evaluation.
        workers: Decoding processes; None for one per core that this process may use, at most 16.
        loader: ``torch`` decodes in worker processes, ``dali`` on the GPU with NVIDIA DALI.
    """

    class_by_class: ClassVar[bool] = True
    splits: ClassVar[tuple[str, ...]] = ()
    """The folders of the training and of the test images below ``folder``, for ``data.py action=check``; empty if unknown."""

    crops: Crops = field(default_factory=Crops)
    workers: Annotated[int, Ge(0), Le(1024)] | None = None
    loader: Loader = "torch"

    def stream(self, train: Listing, test: Listing, class_names: tuple[str, ...], context: LoadContext) -> Data:
        """Return the splits of the listed images. Raises ConfigError if settings do not fit them."""
        training, validation = self.divide(train.labels, context.root)
        images, size = train.take(training), self.crops.size
        problems = list(self.mismatches(len(images), 3, context))
        if problems:
            raise ConfigError(problems)
        held_out = None if validation is None else train.take(validation)
        test = test.take(self.limited(test.labels, self.limit_test))
        labels = {"training": images.labels, "test": test.labels}
        if held_out is not None:
            labels["validation"] = held_out.labels
        warn_of_missing_classes(labels, class_names)
        normalization = Normalization.of(self.mean, self.std, context.device)

        def split(listing: Listing, *, shuffled: bool = False) -> StreamSplit:
            return StreamSplit(
                listing,
                self.crops.view(train=shuffled),
                loader=self.loader,
                workers=self.workers,
                batch_size=self.batch_size if shuffled else self.eval_batch_size,
                normalization=normalization,
                context=context,
                train=shuffled,
                drop_last=self.drop_last,
            )

        return Data(
            train=split(images, shuffled=True),
            train_plain=split(images),
            validation=None if held_out is None else split(held_out),
            test=split(test),
            input_shape=(3, size, size),
            num_classes=len(class_names),
            class_names=class_names,
        )

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield a problem for each value out of range, and if the loader is not installed; subclasses add missing files."""
        yield from super().check(config, root)
        yield from check_decoding(config)

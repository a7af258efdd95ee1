"""A folder of images whose labels are a model's classes."""

from __future__ import annotations

import dataclasses
import os

from ..dataset.fingerprint import fingerprint
from ..dataset.items import NO_LABEL, Folder, Sample
from ..loading import LoadedModel


class Labelled(Folder):
    """The images below a folder, as a model takes them, labelled as its classes are.

    Args:
        root: the folder.
        loaded: the model. An image's label is the class that the first folder it is in is named
            after. Where the classes' names are unknown there are no labels: the folders' order
            would be a guess.

    Raises:
        ValueError: a folder has the name of several classes.

    Attributes:
        unknown: folders that no class is named after; their images have no label.
    """

    def __init__(self, root: str | os.PathLike[str], loaded: LoadedModel) -> None:
        self._how = how = loaded.preprocessing
        super().__init__(root, how.values, shown=how.seen)
        names = list(loaded.classes or ())
        for name in self.classes:
            if names.count(name) > 1:
                ids = [index for index, other in enumerate(names) if other == name]
                raise ValueError(
                    f"the classes {ids} are all named {name!r}, so images in a folder of that name "
                    "have no certain label: rename the folder, or the classes with --classes FILE"
                )
        self._ids = {name: names.index(name) for name in self.classes if name in names}
        self.unknown = [name for name in self.classes if name not in self._ids]

    def __getitem__(self, index: int) -> Sample:
        """Read one file."""
        sample = super().__getitem__(index)
        if sample.label == NO_LABEL:
            return sample
        label = self._ids.get(self.classes[sample.label], NO_LABEL)
        return dataclasses.replace(sample, label=label)

    def fingerprint(self) -> str:
        """Return a hash of what decides the images: names, labels and preprocessing."""
        return fingerprint([super().fingerprint(), self._ids, self._how])

"""Photographs as a data set: as a model takes them, with labels and regions of their own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import Dataset

from ..dataset.fingerprint import fingerprint
from ..dataset.items import NO_LABEL, Sample, sampled
from ..loading import LoadedModel, find_photographs, read_photograph
from .region_files import RegionFiles


class Photographs(Dataset[Sample]):
    """Image files as a model takes them. An image's label is the class its folder is named after.

    Where the classes' names are unknown there are no labels: the folders' order would be a guess.

    Args:
        root: a folder above all files; names are relative to it.
        files: the files.
        folders: for each file the name of the folder that may be its class, or "".
        loaded: the model.
        regions: where each photograph's regions are kept.

    Attributes:
        root, files, folders: as given.
        labels: class ids, -1 where unknown.
        unknown: folders that no class is named after; their images have no label.

    Raises:
        ValueError: a folder has the name of several classes.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[Path],
        folders: Sequence[str],
        loaded: LoadedModel,
        regions: RegionFiles | None = None,
    ) -> None:
        self.root, self.files, self.folders = root, list(files), list(folders)
        self._how, self._regions = loaded.preprocessing, regions
        if regions is not None:
            regions.check(self.files)
        classes = list(loaded.classes or ())
        ids: dict[str, int] = {}
        for name in sorted({name for name in folders if name in classes}):
            same = [index for index, other in enumerate(classes) if other == name]
            if len(same) > 1:
                raise ValueError(
                    f"the classes {same} are all named {name!r}, so images in a folder of that "
                    "name have no certain label: rename the folder, or the classes with --classes "
                    "FILE"
                )
            ids[name] = same[0]
        self.labels = [ids.get(name, NO_LABEL) for name in folders]
        self.unknown = sorted({name for name in folders if name and name not in ids})

    @classmethod
    def below(cls, root: Path, loaded: LoadedModel, regions: RegionFiles | None) -> Photographs:
        """Return all image files below a folder; the first folder below it may be a class.

        Raises:
            NotADirectoryError: there is no such folder.
            ValueError: there is no image file in it.
        """
        files = find_photographs(root)
        if not files:
            raise ValueError(f"there is no image file in {root} or in its folders")
        parts = [file.relative_to(root).parts for file in files]
        folders = [above if below else "" for above, *below in parts]
        return cls(root, files, folders, loaded, regions)

    @classmethod
    def named(
        cls, files: Sequence[Path], loaded: LoadedModel, regions: RegionFiles | None
    ) -> Photographs:
        """Return some files; the folder that a file is in may be its class."""
        absolute = [Path(os.path.normpath(file.absolute())) for file in files]
        root = Path(os.path.commonpath([file.parent for file in absolute]))
        return cls(root, files, [file.parent.name for file in absolute], loaded, regions)

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        """Read one file.

        Raises:
            LookupError: there are no regions of it.
            OSError: it cannot be read.
            ValueError: it is no whole image, or its regions are of another size.
        """
        photograph = read_photograph(self.files[index])
        image, picture = self._how(photograph)
        regions = None
        if self._regions is not None:
            size = (photograph.shape[-2], photograph.shape[-1])
            seen = (picture.shape[-2], picture.shape[-1])
            regions = self._regions.of(self.files[index], size, seen, self._how.box(size))
        return Sample(image, self.labels[index], self.name(index), picture, regions)

    def name(self, index: int) -> str:
        """Return a file's path below the root, with slashes on every system."""
        absolute = Path(os.path.normpath(self.files[index].absolute()))
        return Path(os.path.relpath(absolute, os.path.normpath(self.root.absolute()))).as_posix()

    def fingerprint(self) -> str:
        """Return a hash of files' names, sizes and ends, labels, preprocessing and regions."""
        files = [[self.name(index), *sampled(file)] for index, file in enumerate(self.files)]
        return fingerprint([files, self.labels, self._how, self._regions])

"""Photographs as a data set: preprocessed for a model, with labels and regions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import Dataset

from ..dataset.fingerprint import fingerprint
from ..dataset.items import NO_LABEL, Sample, content_of
from ..loading import LoadedModel, find_photographs, read_photograph
from .region_files import RegionFiles


class Photographs(Dataset[Sample]):
    """Image files, preprocessed for a model; a file's folder may name its class.

    If the class names are unknown there are no labels: folder order would only be a guess.

    Args:
        root: a folder above all files; names are relative to it.
        files: the files.
        folders: for each file, the name of the folder that may be its class, or "".
        loaded: the model.
        regions: files of the photographs' regions.

    Attributes:
        root, files, folders: see the arguments.
        labels: class ids, -1 if unknown.
        unknown: folders without a class of the same name; their images have no label.

    Raises:
        ValueError: several classes have the name of a folder.
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
                    "name have an ambiguous label: rename the folder, or the classes with "
                    "--classes FILE"
                )
            ids[name] = same[0]
        self.labels = [ids.get(name, NO_LABEL) for name in folders]
        self.unknown = sorted({name for name in folders if name and name not in ids})

    @classmethod
    def below(cls, root: Path, loaded: LoadedModel, regions: RegionFiles | None) -> Photographs:
        """Find all image files below a folder; its direct subfolders may be classes.

        Raises:
            NotADirectoryError: the folder does not exist.
            ValueError: the folder contains no image file.
        """
        files = find_photographs(root)
        if not files:
            raise ValueError(f"there are no image files in {root} or its subfolders")
        parts = [file.relative_to(root).parts for file in files]
        folders = [above if below else "" for above, *below in parts]
        return cls(root, files, folders, loaded, regions)

    @classmethod
    def named(
        cls, files: Sequence[Path], loaded: LoadedModel, regions: RegionFiles | None
    ) -> Photographs:
        """Use the given files; the folder that contains a file may be its class."""
        absolute = [Path(os.path.normpath(file.absolute())) for file in files]
        root = Path(os.path.commonpath([file.parent for file in absolute]))
        return cls(root, files, [file.parent.name for file in absolute], loaded, regions)

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        """Read one file.

        Raises:
            LookupError: the file has no regions.
            OSError: the file cannot be read.
            ValueError: the file is not a complete image, or its regions have another size.
        """
        photograph = read_photograph(self.files[index])
        image, picture = self._how(photograph)
        regions = None
        if self._regions is not None:
            size = (photograph.shape[-2], photograph.shape[-1])
            seen = (picture.shape[-2], picture.shape[-1])
            regions = self._regions.of(self.files[index], size, seen, self._how.box(size))
        return Sample(image, self.labels[index], self.name(index), picture, regions)

    def cut_boxes(self, index: int) -> list[str]:
        """Return the names of a file's boxes that reach beyond the photograph.

        Raises:
            LookupError, OSError, ValueError: see :meth:`__getitem__`.
        """
        if self._regions is None:
            return []
        file = self.files[index]
        height, width = read_photograph(file).shape[-2:]
        return self._regions.cut_boxes(file, (height, width))

    def name(self, index: int) -> str:
        """Return a file's path below the root, with slashes on every system."""
        absolute = Path(os.path.normpath(self.files[index].absolute()))
        return Path(os.path.relpath(absolute, os.path.normpath(self.root.absolute()))).as_posix()

    def fingerprint(self) -> str:
        """Return a hash of file names and contents, labels, preprocessing and regions."""
        files = [[self.name(index), content_of(file)] for index, file in enumerate(self.files)]
        return fingerprint([files, self.labels, self._how, self._regions])

"""Read a data set as batches of images with labels and the locations of objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ...regions.masks import Regions

#: The label of an image whose class is unknown.
_NO_LABEL = -1


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ImageBatch:
    """Consecutive images of a data set, all of one size.

    Attributes:
        first: the position of the first image.
        images: (N, C, *size).
        labels: N class ids; -1 if unknown.
        where: masks of the objects in each image, or None.
        inputs: further positional inputs of the model, each with N rows.
        keywords: keyword inputs of the model, each with N rows.
    """

    first: int
    images: Tensor
    labels: tuple[int, ...]
    where: Regions | None
    inputs: tuple[Tensor, ...] = ()
    keywords: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)

    @property
    def indexes(self) -> range:
        """Positions in the data set."""
        return range(self.first, self.first + len(self.images))

    def to(self, device: torch.device) -> ImageBatch:
        """Return the batch with its images and further inputs on a device."""
        return dataclasses.replace(
            self,
            images=self.images.to(device),
            inputs=tuple(value.to(device) for value in self.inputs),
            keywords={name: value.to(device) for name, value in self.keywords.items()},
        )


def image_batches(dataset: Any, batch_size: int) -> Iterator[ImageBatch]:
    """Yield a data set's batches without keeping them.

    Args:
        dataset: images as a tensor (N, C, *size); a sequence, map-style or iterable data set of
            single images; or any other iterable, such as a ``DataLoader``, of batches. An element
            is the images alone, a tuple of images, labels and places, or an object with ``image``,
            ``label`` and ``regions`` such as :class:`camlens.dataset.Sample`. For a model with
            several inputs, replace the images with a tuple of images, further inputs and, last, a
            mapping of keyword inputs. Places are masks (K, *size) or (*size), a box of edges
            (left, top, right, bottom), or ``Regions``.
        batch_size: number of single images in a batch.

    Raises:
        TypeError: the data set or an element has an unsupported type.
        ValueError: an element has a wrong shape, or there are no images.

    Example:
        >>> pairs = [(torch.zeros(3, 8, 8), label) for label in range(3)]
        >>> [(batch.first, batch.labels) for batch in image_batches(pairs, 2)]
        [(0, (0, 1)), (2, (2,))]
    """
    first = 0
    for batch in _batches(dataset, batch_size):
        if not len(batch.images):
            continue
        yield dataclasses.replace(batch, first=first)
        first += len(batch.images)
    if not first:
        raise ValueError("the data set contains no images, so there is nothing to evaluate")


def length_of(dataset: Any) -> int:
    """Return the number of images in a data set; 0 if it is unknown."""
    inner: Any = dataset.dataset if isinstance(dataset, DataLoader) else dataset
    single = isinstance(dataset, (DataLoader, Tensor)) or _has_single_images(dataset)
    try:
        return len(inner) if single else 0
    except TypeError:
        return 0


def _batches(dataset: Any, batch_size: int) -> Iterator[ImageBatch]:
    if isinstance(dataset, Tensor):
        for images in dataset.split(batch_size):
            yield _batch([images], None, None)
    elif _has_single_images(dataset):
        yield from _put_together(_elements(dataset), batch_size)
    elif isinstance(dataset, Iterable) and not isinstance(dataset, (str, bytes)):
        for element in dataset:
            yield _batch(*_parts(element))
    else:
        raise TypeError(
            "expected a data set as a tensor (N, C, *size), a sequence of images, a Dataset or a "
            f"DataLoader, got {type(dataset).__name__}"
        )


def _has_single_images(dataset: Any) -> bool:
    if isinstance(dataset, (DataLoader, Tensor, str, bytes)):
        return False
    mapped = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    return isinstance(dataset, IterableDataset) or mapped


def _elements(dataset: Any) -> Iterator[Any]:
    if isinstance(dataset, IterableDataset):
        yield from dataset
    else:
        for index in range(len(dataset)):
            yield dataset[index]


def _put_together(elements: Iterator[Any], batch_size: int) -> Iterator[ImageBatch]:
    waiting: list[ImageBatch] = []
    for index, element in enumerate(elements):
        try:
            batch = _single(element)
        except (TypeError, ValueError) as error:
            error.add_note(f"in item {index} of the data set")
            raise
        if waiting and (len(waiting) == batch_size or not _fit(waiting[0], batch)):
            yield _joined(waiting)
            waiting = []
        waiting.append(batch)
    if waiting:
        yield _joined(waiting)


def _single(element: Any) -> ImageBatch:
    (image, *further), label, place = _parts(element)
    if label is not None and torch.as_tensor(label).numel() != 1:
        raise ValueError(
            f"expected one image and its label, got labels {label!r:.60}: an element of a sequence "
            "must be a single image; pass batches as a DataLoader or an iterator, iter(list)"
        )
    if not isinstance(place, Regions | None):
        place = torch.as_tensor(place).unsqueeze(0)
    label = None if label is None else torch.as_tensor(label).flatten()
    rows = [_rows(item, lambda value: torch.as_tensor(value).unsqueeze(0)) for item in further]
    return _batch((image.unsqueeze(0), *rows), label, place)


def _rows(values: Any, change: Callable[[Any], Tensor]) -> Any:
    if isinstance(values, Mapping):
        return {name: change(value) for name, value in values.items()}
    return change(values)


def _parts(element: Any) -> tuple[tuple[Any, ...], Any, Any]:
    """Split an element into the model's inputs (the images first), the labels and the places."""
    if isinstance(image := getattr(element, "image", None), Tensor):
        return (image,), getattr(element, "label", None), getattr(element, "regions", None)
    parts = list(element) if isinstance(element, (tuple, list)) else [element]
    taken = tuple(parts[0]) if parts and isinstance(parts[0], (tuple, list)) else (*parts[:1],)
    if not 1 <= len(parts) <= 3 or not taken or not isinstance(taken[0], Tensor):
        raise TypeError(
            "expected an element of the data set as images, (images, labels) or (images, labels, "
            f"masks, boxes or Regions), got {type(element).__name__} of "
            f"{', '.join(type(part).__name__ for part in parts[:4])}: further inputs go into a "
            "tuple with the images"
        )
    label, place = [*parts[1:], None, None][:2]
    return taken, label, place


def _batch(taken: Sequence[Any], labels: Any, place: Any) -> ImageBatch:
    images, *further = taken
    keywords = further.pop() if further and isinstance(further[-1], Mapping) else {}
    _check_further([*further, *keywords.values()], len(images))
    if labels is None:
        labels = torch.full((len(images),), _NO_LABEL)
    known = torch.as_tensor(labels).flatten()
    if len(known) != len(images) or known.is_floating_point():
        raise ValueError(
            f"expected a class id for each of {len(images)} images, got {known.dtype} of shape "
            f"{tuple(known.shape)}"
        )
    return ImageBatch(
        first=0,
        images=images,
        labels=tuple(known.tolist()),
        where=_regions(place, images),
        inputs=tuple(further),
        keywords=keywords,
    )


def _check_further(further: Sequence[Any], count: int) -> None:
    for value in further:
        if not isinstance(value, Tensor) or value.shape[:1] != (count,):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"expected further model inputs as tensors with a row for each of {count} images, "
                f"got {got}"
            )


def _regions(place: Any, images: Tensor) -> Regions | None:
    """Convert masks or boxes to regions.

    Raises:
        ValueError: their number or size does not match the images.
    """
    if place is None or isinstance(place, Regions):
        regions = place
    else:
        size = images.shape[2:]
        places = torch.as_tensor(place)
        if places.shape == (len(images), 2 * len(size)):
            regions = Regions.from_boxes(["object"], places.unsqueeze(1), size)
        else:
            masks = places.unsqueeze(1) if places.ndim == images.ndim - 1 else places
            if masks.ndim != images.ndim or masks.shape[2:] != size:
                raise ValueError(
                    f"expected locations of objects in images of size {tuple(size)} as masks "
                    f"(K, *size) or (*size), a box of {2 * len(size)} edges, or Regions for each "
                    f"image, got shape {tuple(places.shape)} for a batch"
                )
            names = [f"object {number}" for number in range(masks.shape[1])]
            regions = Regions(names, masks.float(), axes=len(size))
    if regions is not None and len(regions.masks) not in (1, len(images)):
        raise ValueError(
            f"expected masks for each of {len(images)} images, got masks for {len(regions.masks)}"
        )
    return regions


def _fit(one: ImageBatch, other: ImageBatch) -> bool:
    """Return whether two images can share a batch."""
    kinds = [
        (
            batch.images.shape[1:],
            None if batch.where is None else batch.where.names,
            [value.shape[1:] for value in batch.inputs],
            {name: value.shape[1:] for name, value in batch.keywords.items()},
        )
        for batch in (one, other)
    ]
    return kinds[0] == kinds[1]


def _joined(batches: Sequence[ImageBatch]) -> ImageBatch:
    masks = [batch.where.masks for batch in batches if batch.where is not None]
    known = batches[0].where
    return ImageBatch(
        first=0,
        images=torch.cat([batch.images for batch in batches]),
        labels=tuple(label for batch in batches for label in batch.labels),
        where=known and Regions(known.names, torch.cat(masks), axes=masks[0].ndim - 2),
        inputs=tuple(
            torch.cat(values) for values in zip(*(batch.inputs for batch in batches), strict=True)
        ),
        keywords={
            name: torch.cat([batch.keywords[name] for batch in batches])
            for name in batches[0].keywords
        },
    )

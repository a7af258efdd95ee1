"""Train a ResNet-18 on Tiny ImageNet, resumable: the network of ``benchmarks/faithfulness.py``.

``python benchmarks/train_tiny_imagenet.py FOLDER OUT`` with the folder that
``../shared/tiny_imagenet/from_snapshot.py`` writes. Photographs and weights are for research and
stay out of the repository. It needs Lightning, which ``make test``'s environment has. Early epochs
see smaller photographs, which costs less and loses little.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import save_file
from tiny_imagenet import SIZE, network, normalized, photographs
from torch import Tensor
from torch.nn import functional


class Batches:
    """Shuffled, flipped and shifted batches; an epoch's order depends on the seed and the epoch."""

    def __init__(
        self, pixels: Tensor, classes: Tensor, *, batch: int, size: int, epoch: int
    ) -> None:
        self.pixels, self.classes = pixels, classes
        self.batch, self.size, self.epoch = batch, size, epoch

    def __len__(self) -> int:
        return len(self.classes) // self.batch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        draw = torch.Generator().manual_seed(self.epoch)
        order = torch.randperm(len(self.classes), generator=draw)
        for rows in order[: len(self) * self.batch].view(-1, self.batch):
            images = normalized(self.pixels[rows])
            flipped = torch.rand(len(rows), generator=draw) < 0.5
            images[flipped] = images[flipped].flip(3)
            images = _cropped(images, draw)
            if self.size != SIZE:
                images = functional.interpolate(
                    images, self.size, mode="bilinear", antialias=True, align_corners=False
                )
            yield images, self.classes[rows]


def _cropped(images: Tensor, draw: torch.Generator) -> Tensor:
    """Cut a square of 75% to 100% of the side out of each quarter of a batch, and enlarge it."""
    parts = []
    for part in images.chunk(4):
        side = int(torch.randint(SIZE * 3 // 4, SIZE + 1, (), generator=draw))
        top, left = torch.randint(SIZE - side + 1, (2,), generator=draw).tolist()
        cut = part[:, :, top : top + side, left : left + side]
        parts.append(functional.interpolate(cut, SIZE, mode="bilinear", align_corners=False))
    return torch.cat(parts)


class Classifier(lightning.LightningModule):
    """Cross-entropy with smoothed labels, and one cycle of the rate."""

    def __init__(
        self, train: tuple[Tensor, Tensor], *, batch: int, rate: float, sizes: list[int]
    ) -> None:
        super().__init__()
        self.model = network().to(memory_format=torch.channels_last)
        self.train_set, self.batch, self.rate, self.sizes = train, batch, rate, sizes

    def train_dataloader(self) -> Batches:
        epoch = self.current_epoch
        return Batches(*self.train_set, batch=self.batch, size=self.sizes[epoch], epoch=epoch)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images, classes = batch
        logits = self.model(images.contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(logits, classes, label_smoothing=0.1)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        images, classes = batch
        right = self.model(normalized(images)).argmax(dim=1) == classes
        self.log("top1", right.float().mean())

    def on_validation_epoch_end(self) -> None:
        print(f"epoch {self.current_epoch}: top-1 {self.trainer.callback_metrics['top1']:.1%}")

    def configure_optimizers(self) -> Any:
        decayed = [p for p in self.parameters() if p.ndim > 1]
        others = [p for p in self.parameters() if p.ndim <= 1]
        optimizer = torch.optim.SGD(
            [{"params": decayed, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}],
            lr=self.rate,
            momentum=0.9,
            nesterov=True,
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            self.rate,
            total_steps=len(self.sizes) * (len(self.train_set[1]) // self.batch),
            pct_start=0.25,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.2)
    parser.add_argument("--smallest", type=int, default=32, help="pixels in the first epoch")
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--steps", type=int, help="end after so many, to try it out")
    args = parser.parse_args()
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    lightning.seed_everything(0, verbose=False)
    sizes = torch.linspace(args.smallest, SIZE, args.epochs).div(8).round().mul(8).int().tolist()
    train = photographs(args.folder, "train")[:2]
    val = torch.utils.data.TensorDataset(*photographs(args.folder, "val")[:2])
    task = Classifier(train, batch=args.batch, rate=args.rate, sizes=sizes)
    kept = ModelCheckpoint(
        args.out, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=args.epochs,
        max_steps=args.steps or -1,
        precision=args.precision,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[kept],
        logger=lightning.pytorch.loggers.CSVLogger(args.out, name="", version=""),
        enable_model_summary=False,
        enable_progress_bar=False,  # its thread takes a tenth of a core from a step's own threads
    )
    before = args.out / "last.ckpt"
    loader = torch.utils.data.DataLoader(val, batch_size=500)
    last = before if before.exists() else None
    trainer.fit(task, val_dataloaders=loader, ckpt_path=last, weights_only=False)
    (found,) = trainer.validate(task, loader, verbose=False)
    top1 = found["top1"]
    facts = {"top1": f"{top1:.4f}", "epochs": str(args.epochs)}
    state = {name: value.contiguous() for name, value in task.model.state_dict().items()}
    save_file(state, args.out / "resnet18.safetensors", metadata=facts)
    print(f"top-1 of the validation photographs: {top1:.1%}")


if __name__ == "__main__":
    main()

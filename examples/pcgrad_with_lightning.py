"""PCGrad in a LightningModule with DDP, by manual optimisation: python examples/pcgrad_with_lightning.py 2

The argument is the number of processes. Combined are the task gradients of the whole batch, however many processes it
is spread over.
"""

import sys

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from mtlsearch import PCGrad


class TwoTasks(lightning.LightningModule):
    """A trunk with two heads that pull in different directions."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.trunk = nn.Sequential(nn.Linear(8, 64), nn.Tanh())
        self.heads = nn.ModuleList([nn.Linear(64, 1), nn.Linear(64, 1)])

    def forward(self, inputs: Tensor) -> list[Tensor]:
        features = self.trunk(inputs)
        return [head(features) for head in self.heads]

    def training_step(self, batch: list[Tensor], index: int) -> None:
        inputs, targets = batch
        optimizer = self.optimizers()
        losses = [(output - target).square().mean() for output, target in zip(self(inputs), targets.split(1, dim=1))]
        optimizer.zero_grad()
        optimizer.backward(losses)
        self.clip_gradients(optimizer, gradient_clip_val=10.0, gradient_clip_algorithm="norm")
        optimizer.step()
        self.log("cosine", optimizer.diagnostics.cosines[0, 1].float())

    def train_dataloader(self) -> DataLoader:
        inputs = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
        targets = torch.stack([inputs[:, :2].sum(1).tanh(), -inputs[:, 1:3].sum(1).tanh()], dim=1)
        data, ranks = TensorDataset(inputs, targets), self.trainer.world_size
        sampler = DistributedSampler(data, ranks, self.trainer.global_rank, shuffle=False)
        return DataLoader(data, batch_size=64 // ranks, sampler=sampler)  # 64 over all processes

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return PCGrad(torch.optim.SGD(self.parameters(), lr=0.05))


def main(devices: int) -> None:
    lightning.seed_everything(0, verbose=False)
    model = TwoTasks()
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        use_distributed_sampler=False,
        max_epochs=5,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model)
    if trainer.is_global_zero:
        norm = sum(parameter.detach().square().sum() for parameter in model.parameters()).sqrt()
        cosine = trainer.callback_metrics["cosine"]
        print(f"processes {trainer.world_size}, steps {trainer.global_step}, cosine {cosine:.6f}, ", end="")
        print(f"length of the weights {norm:.6f}")


if __name__ == "__main__":
    main(devices=int(sys.argv[1]) if len(sys.argv) > 1 else 1)

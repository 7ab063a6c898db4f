"""Plain torch.distributed with the standard variables; knows nothing of the service."""

import json
import os

import torch
import torch.distributed as dist

NAMES = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
assert all(name in os.environ for name in NAMES)
task = json.loads(os.environ["TF_CONFIG"])["task"]
assert task["index"] == int(os.environ["RANK"])

dist.init_process_group("gloo")
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(3):
    optimizer.zero_grad()
    model(torch.ones(2, 4) * (dist.get_rank() + 1)).sum().backward()
    optimizer.step()
total = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(total)
# A model that outlives its group can block the interpreter's end inside torch.
del model, optimizer
print(f"rank {dist.get_rank()} of {dist.get_world_size()}: sum {total.item():.0f}", flush=True)
dist.destroy_process_group()

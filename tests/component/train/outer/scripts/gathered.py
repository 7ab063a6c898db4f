"""Gathers what two replicas say, says something else into the same memory, prints what arrived."""

import torch

from trainmaster.train.outer.frames import Message
from trainmaster.train.outer.hub import Hub

arrived: list[Message] = []
hub = Hub(0, 2, lambda: 0.0)
peers = [
    hub.connect(0, 0, "a", arrived.append),
    hub.connect(0, 1, "b", lambda _message: None),
]
memory = torch.full((4,), 7.0)
for peer, tensor in zip(peers, (torch.zeros(4), memory), strict=True):
    hub.receive(peer, Message({"op": "talk", "kind": "gather", "value": 0}, [tensor]))
memory.fill_(-1.0)  # as the next message from the same connection does
print("arrived", arrived[-1].tensors[1].tolist())

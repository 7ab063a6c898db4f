"""Claims and reservations as they lie in the row of their job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scheduler.core.cluster import Claim, NodeShare, Placement, Reservation


def parse_claim(document: Mapping[str, Any]) -> Claim:
    """Return the claim that `write_claim` wrote."""
    shares = tuple(
        NodeShare(
            node_id=share["node_id"],
            num_workers=share["num_workers"],
            gpu_indices=tuple(share["gpu_indices"]),
        )
        for share in document["shares"]
    )
    return Claim(placement=Placement(shares=shares), until_ms=document["until_ms"])


def write_claim(claim: Claim) -> dict[str, Any]:
    """Return the document of `claim`."""
    shares = [
        {
            "node_id": share.node_id,
            "num_workers": share.num_workers,
            "gpu_indices": list(share.gpu_indices),
        }
        for share in claim.placement.shares
    ]
    return {"shares": shares, "until_ms": claim.until_ms}


def parse_reservation(document: Mapping[str, Any]) -> Reservation:
    """Return the reservation that `write_reservation` wrote."""
    return Reservation(start_ms=document["start_ms"], node_ids=tuple(document["node_ids"]))


def write_reservation(reservation: Reservation) -> dict[str, Any]:
    """Return the document of `reservation`."""
    return {"start_ms": reservation.start_ms, "node_ids": list(reservation.node_ids)}

"""Who has had how much: projects and their users, and what that costs or earns them. Pure logic.

Two things follow from it. A project within its guaranteed quota goes first. And who has had more
than a fair share pays: one octave of its keys for each doubling, so that of two tenants with equal
jobs the one that has had less goes first until both have had their shares, while a short job of
the heavier one still passes a long job of the lighter one.

Source:
    Usage decays as in Slurm's multifactor priority; siblings are compared with siblings as in its
    Fair Tree. Ours differs: an octave is a price inside the order, not an order of its own.
"""

from __future__ import annotations

from scheduler.core.cluster import QuotaView, UsageView
from scheduler.core.octaves import OCTAVE, count_octaves, halve
from scheduler.core.policy import Policy

_STEP = OCTAVE // 4
_REFRESH_MS = 60_000
_LN2_INVERSE_PPM = 1_442_695


class Tenant:
    """A project, or one user of it.

    Attributes:
        size: what its jobs hold now, in thousandths of a GPU.
        num_gpus: GPUs that its jobs hold now, for quotas.
        num_kept: GPUs that are kept for jobs of it that wait.
        num_leaving: of `num_gpus` those of jobs that were asked to stop, and do not only move.
        num_waiting: jobs of it that could start.
        overshare: what its keys pay now, in 1/1024 octaves.
    """

    __slots__ = (
        "as_of_ms",
        "num_gpus",
        "num_kept",
        "num_leaving",
        "num_waiting",
        "overshare",
        "quota",
        "size",
        "usage",
    )

    def __init__(self, quota: QuotaView) -> None:
        self.quota = quota
        self.size = 0
        self.num_gpus = 0
        self.num_kept = 0
        self.num_leaving = 0
        self.num_waiting = 0
        self.overshare = 0
        self.usage = 0  # thousandths of a GPU x ms, decayed up to as_of_ms
        self.as_of_ms = 0

    @property
    def is_active(self) -> bool:
        """Whether it takes part in the sharing."""
        return self.size > 0 or self.num_waiting > 0

    @property
    def num_staying(self) -> int:
        """GPUs that its jobs hold and were not asked to give back."""
        return self.num_gpus - self.num_leaving

    def accrue(self, now_ms: int, half_life_ms: int) -> None:
        """Bring usage up to `now_ms`."""
        elapsed_ms = now_ms - self.as_of_ms
        if elapsed_ms <= 0:
            return
        self.usage = halve(self.usage, elapsed_ms, half_life_ms)
        if self.size:
            self.usage += self.size * spend(elapsed_ms, half_life_ms)
        self.as_of_ms = now_ms


def spend(elapsed_ms: int, half_life_ms: int) -> int:
    """Return the decayed usage of one unit held for `elapsed_ms`, in ms."""
    full = half_life_ms * _LN2_INVERSE_PPM // 1_000_000
    return full - halve(full, elapsed_ms, half_life_ms)


class Tenants:
    """All projects and users that were seen."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._quotas: dict[tuple[str, str], QuotaView] = {}
        self.by_key: dict[tuple[str, str], Tenant] = {}
        self.has_guarantees = False
        self._is_frozen = False
        self._frozen: dict[tuple[str, str], int] = {}
        self._refreshed_ms: int | None = None

    def freeze(self, other: Tenants) -> None:
        """Take over the prices of `other`, for a copy in which they do not change."""
        self._is_frozen = True
        self._frozen = {key: tenant.overshare for key, tenant in other.by_key.items()}

    def get(self, project: str, user: str = "") -> Tenant:
        """Return the tenant; one that nobody has set a quota for has the defaults."""
        key = (project, user)
        found = self.by_key.get(key)
        if found is None:
            quota = self._quotas.get(key) or QuotaView(project=project, user=user)
            found = self.by_key[key] = Tenant(quota)
            found.overshare = self._frozen.get(key, 0)
        return found

    def get_both(self, project: str, user: str) -> tuple[Tenant, Tenant | None]:
        """Return a project and its user, None where nobody said who."""
        return self.get(project), self.get(project, user) if user else None

    def change(self, project: str, user: str, size: int, num_gpus: int, now_ms: int) -> None:
        """Note that jobs of a user have got places, or with negative numbers lost them."""
        for tenant in self._both(project, user):
            tenant.accrue(now_ms, self._policy.half_life_ms)
            tenant.size += size
            tenant.num_gpus += num_gpus

    def keep(self, project: str, user: str, num_gpus: int) -> None:
        """Note that GPUs are kept for waiting jobs of a user, or with a negative number no more."""
        for tenant in self._both(project, user):
            tenant.num_kept += num_gpus

    def leave(self, project: str, user: str, num_gpus: int) -> None:
        """Note that a job of a user was asked to stop, or with a negative number has stopped."""
        for tenant in self._both(project, user):
            tenant.num_leaving += num_gpus

    def wait(self, project: str, user: str, count: int) -> None:
        """Note that jobs of a user have begun to wait, or with a negative number have ended to."""
        for tenant in self._both(project, user):
            tenant.num_waiting += count

    def set_quotas(self, quotas: tuple[QuotaView, ...]) -> None:
        """Replace all quotas."""
        self._quotas = {(quota.project, quota.user): quota for quota in quotas}
        self.has_guarantees = any(quota.guaranteed_gpus for quota in quotas)
        for (project, user), tenant in self.by_key.items():
            tenant.quota = self._quotas.get((project, user)) or QuotaView(
                project=project, user=user
            )
        self._refreshed_ms = None

    def set_usage(self, usage: tuple[UsageView, ...], now_ms: int) -> None:
        """Replace what is known of ended attempts; running ones are added by the caller."""
        for tenant in self.by_key.values():
            tenant.usage, tenant.as_of_ms = 0, now_ms
        for one in usage:
            elapsed_ms = max(0, now_ms - one.as_of_ms)
            for tenant in self._both(one.project, one.user):
                tenant.accrue(now_ms, self._policy.half_life_ms)
                tenant.usage += halve(one.gpu_ms * 1000, elapsed_ms, self._policy.half_life_ms)
        self._refreshed_ms = None

    def add_run(self, project: str, user: str, size: int, started_ms: int, now_ms: int) -> None:
        """Add what a running job has used so far; for a view that counts ended attempts only."""
        used = size * spend(max(0, now_ms - started_ms), self._policy.half_life_ms)
        for tenant in self._both(project, user):
            tenant.accrue(now_ms, self._policy.half_life_ms)
            tenant.usage += used

    def get_overshare(self, project: str, user: str) -> int:
        """Return what a job of this user pays, in 1/1024 octaves."""
        return self.get(project).overshare + (self.get(project, user).overshare if user else 0)

    def refresh(self, capacity: int, now_ms: int) -> bool:
        """Work the prices out anew, at most once a minute; True when any has changed.

        Args:
            capacity: of all nodes that take work, in thousandths of a GPU.
        """
        last_ms = self._refreshed_ms
        if self._is_frozen:
            return False
        if last_ms is not None and last_ms <= now_ms < last_ms + _REFRESH_MS:
            return False
        self._refreshed_ms = now_ms
        active = {key: tenant for key, tenant in sorted(self.by_key.items()) if tenant.is_active}
        families: dict[str, int] = {}
        for (project, user), tenant in active.items():
            if user:
                families[project] = families.get(project, 0) + tenant.quota.weight
        weights = sum(tenant.quota.weight for (_, user), tenant in active.items() if not user)
        has_changed = False
        for (project, user), tenant in active.items():
            tenant.accrue(now_ms, self._policy.half_life_ms)
            if user:
                parent = self.get(project)
                share = (max(parent.usage, 1), families[project])
            else:
                share = (self._ceiling(capacity), weights)
            fair = share[0] * tenant.quota.weight // max(1, share[1])
            price = self._price(tenant.usage, fair)
            has_changed |= price != tenant.overshare
            tenant.overshare = price
        return has_changed

    def _ceiling(self, capacity: int) -> int:
        """The usage of one who has had the whole cluster for ever."""
        return capacity * spend(200 * self._policy.half_life_ms, self._policy.half_life_ms)

    def _price(self, usage: int, fair: int) -> int:
        if usage <= fair:
            return 0
        over = count_octaves(usage) - count_octaves(max(1, fair))
        price = over * self._policy.overshare_ppm // 1_000_000
        return min(price // _STEP * _STEP, self._policy.overshare_max)

    def _both(self, project: str, user: str) -> tuple[Tenant, ...]:
        if not user:
            return (self.get(project),)
        return (self.get(project), self.get(project, user))

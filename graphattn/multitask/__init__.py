"""Several tasks learned at once: how they share, how their losses are weighted, and auxiliary tasks."""

from graphattn.multitask.cross_stitch import CrossStitch
from graphattn.multitask.dynamic_average import DynamicAverage
from graphattn.multitask.gradients import cosines, task_gradients
from graphattn.multitask.gradnorm import GradNorm
from graphattn.multitask.hard import HardSharing
from graphattn.multitask.learner import Learner
from graphattn.multitask.mmoe import MMoE
from graphattn.multitask.pcgrad import PCGrad
from graphattn.multitask.plan import Plan
from graphattn.multitask.sharing import Sharing
from graphattn.multitask.soft import SoftSharing
from graphattn.multitask.uncertainty import Uncertainty
from graphattn.multitask.weighting import Weighting

__all__ = [
    "CrossStitch",
    "DynamicAverage",
    "GradNorm",
    "HardSharing",
    "Learner",
    "MMoE",
    "PCGrad",
    "Plan",
    "Sharing",
    "SoftSharing",
    "Uncertainty",
    "Weighting",
    "cosines",
    "task_gradients",
]

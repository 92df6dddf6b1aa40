"""Training: one loop, its tasks and stopping rules, and runs over many seeds."""

from graphattn.training.adabound import AdaBound, AdaBoundW
from graphattn.training.asked import task
from graphattn.training.averaging import average_states
from graphattn.training.batched import run_batch, run_batches
from graphattn.training.captured import captured
from graphattn.training.detection import Detection
from graphattn.training.fit import Diverged, Outcome, fit
from graphattn.training.graph_classification import GraphClassification
from graphattn.training.graph_tasks import MultiLabelNodes
from graphattn.training.image_classification import ImageClassification
from graphattn.training.label_inputs import LabelInputs
from graphattn.training.launch import Launch
from graphattn.training.layerwise import layerwise
from graphattn.training.on_ray import run_seeds_on_ray
from graphattn.training.runs import (
    Finished,
    Job,
    prepared,
    run_seed,
    run_seeds,
    run_seeds_on_ranks,
    summary,
    take_in,
)
from graphattn.training.sampled import SampledNodeClassification
from graphattn.training.side_by_side import SideBySide, stacked
from graphattn.training.smoothed import smoothed_measures
from graphattn.training.tasks import NodeClassification, Task

__all__ = [
    "AdaBound",
    "AdaBoundW",
    "Detection",
    "Diverged",
    "Finished",
    "GraphClassification",
    "ImageClassification",
    "Job",
    "LabelInputs",
    "Launch",
    "MultiLabelNodes",
    "NodeClassification",
    "Outcome",
    "SampledNodeClassification",
    "SideBySide",
    "Task",
    "average_states",
    "captured",
    "fit",
    "layerwise",
    "prepared",
    "run_batch",
    "run_batches",
    "run_seed",
    "run_seeds",
    "run_seeds_on_ranks",
    "run_seeds_on_ray",
    "smoothed_measures",
    "stacked",
    "summary",
    "take_in",
    "task",
]

"""The models by name. Each is built as `MODELS[name](in_channels, num_classes, **options)`.

Those of graphs are called as `model(x, edge_index)`, and those that look at features of edges take their number as
third argument, `edge_dim`. Those of images are called as `model(x)` with `x` [B, in_channels, H, W], and those that
must know H = W take it as third argument, `image_size`; so are those that find objects in images, whose output is
`detector.Maps`. Of texts, `MODELS["seq2seq"](source_tokens, target_tokens)` is called as `model(source, target)` and
`MODELS["language-model"](tokens)` as `model(tokens)`.
"""

from collections.abc import Callable

from torch import nn

from graphattn.models.attention_wise import AttentionWiseNetwork
from graphattn.models.centernet import centernet
from graphattn.models.cheb import Cheb
from graphattn.models.efficientnet import EfficientNet
from graphattn.models.gat import GAT, ConstGAT, GATv2, GraphTransformer
from graphattn.models.gcn import GCN
from graphattn.models.graph_network import GraphNetwork
from graphattn.models.label_propagation import LabelPropagation
from graphattn.models.language_model import LanguageModel
from graphattn.models.mlp import MLP
from graphattn.models.molecules import MoleculeEncoder
from graphattn.models.monet import MoNet
from graphattn.models.random_guess import RandomGuess
from graphattn.models.residual import Residual
from graphattn.models.resnet import CifarResNet, ImageResNet
from graphattn.models.resnet_dag import resnet_dag
from graphattn.models.sage import SAGE
from graphattn.models.seq2seq import Seq2Seq
from graphattn.models.supergat import SuperGAT
from graphattn.models.vgg import VGG, ControlNetwork
from graphattn.models.vit import VisionTransformer

__all__ = ["DETECTORS", "GRAPH_MODELS", "IMAGE_MODELS", "MODELS", "TEXT_MODELS", "GraphNetwork", "MoleculeEncoder"]

GRAPH_MODELS: dict[str, Callable[..., nn.Module]] = {
    "cheb": Cheb,
    "const-gat": ConstGAT,
    "gat": GAT,
    "gatv2": GATv2,
    "gcn": GCN,
    "graph-transformer": GraphTransformer,
    "label-propagation": LabelPropagation,
    "mlp": MLP,
    "monet": MoNet,
    "random": RandomGuess,
    "residual": Residual,
    "sage": SAGE,
    "supergat": SuperGAT,
}
IMAGE_MODELS: dict[str, Callable[..., nn.Module]] = {
    "attention-wise": AttentionWiseNetwork,
    "control": ControlNetwork,
    "efficientnet": EfficientNet,
    "resnet": CifarResNet,
    "resnet-dag": resnet_dag,
    "resnet-imagenet": ImageResNet,
    "vgg": VGG,
    "vit": VisionTransformer,
}
DETECTORS: dict[str, Callable[..., nn.Module]] = {"centernet": centernet}
TEXT_MODELS: dict[str, Callable[..., nn.Module]] = {"language-model": LanguageModel, "seq2seq": Seq2Seq}
MODELS = dict(sorted((GRAPH_MODELS | IMAGE_MODELS | DETECTORS | TEXT_MODELS).items()))

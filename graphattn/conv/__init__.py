"""Node layers: drop-ins for PyG's attention layers and its attentional read-out, two baselines, sparse features."""

from graphattn.conv.constant import ConstantConv
from graphattn.conv.gat import GATConv
from graphattn.conv.gatv2 import GATv2Conv
from graphattn.conv.readout import AttentionalAggregation
from graphattn.conv.sage import SAGEConv
from graphattn.conv.sparse_linear import SparseFeatures, sparse_linear
from graphattn.conv.swap import GAT, swap
from graphattn.conv.transformer import TransformerConv

__all__ = [
    "GAT",
    "AttentionalAggregation",
    "ConstantConv",
    "GATConv",
    "GATv2Conv",
    "SAGEConv",
    "SparseFeatures",
    "TransformerConv",
    "sparse_linear",
    "swap",
]

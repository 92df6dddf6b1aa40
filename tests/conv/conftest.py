"""PyG's layers are built before any of ours.

Building a layer compiles its class, and a subclass inherits from a compiled class other methods than from a fresh one:
ours must work in either case, and this is the harder one.
"""

from torch_geometric import nn as pyg

for _layer in (pyg.GATConv, pyg.GATv2Conv, pyg.TransformerConv):
    _layer(1, 1)

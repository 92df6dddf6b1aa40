"""OGB's encoders of molecules."""

from __future__ import annotations

from torch import Tensor, nn


class MoleculeEncoder(nn.Module):
    """Categories of atoms [N, 9] and bonds [E, 3], in numbers of any type, -> embeddings [N, width] and [E, width].

    Each is the sum of an embedding for each feature: the AtomEncoder and BondEncoder of OGB's package. With `bonds`
    False there is none for bonds, as models need that do not look at them.

    Raises:
        ImportError: OGB's package is missing.
    """

    def __init__(self, width: int, bonds: bool = True) -> None:
        super().__init__()
        try:
            from ogb.graphproppred.mol_encoder import AtomEncoder, BondEncoder
        except ImportError as error:
            raise ImportError("OGB's molecules need its package: pip install 'graphattn[ogb]'") from error
        self.atoms = AtomEncoder(width)
        self.bonds = BondEncoder(width) if bonds else None

    def forward(self, x: Tensor, edge_attr: Tensor) -> tuple[Tensor, Tensor]:
        return self.atoms(x.long()), edge_attr if self.bonds is None else self.bonds(edge_attr.long())

"""Spaces and maps: fit an `Alignment` between embedding spaces, save it, apply it.

    from suture.aligners import ALIGNERS, Procrustes, load, save_alignment

Aligners read arrays or streams of pairs; they never see files other than suture's own map file.
"""

from .aligner import Aligner, LinearAligner
from .alignment import Alignment, Space
from .errors import RefusedError, SutureError, UsageError
from .file import load, save_alignment
from .linear.blend import Blend
from .linear.cca import CCA
from .linear.identity_ridge import IdentityRidge
from .linear.least_squares import LeastSquares
from .linear.mean_shift import MeanShift
from .linear.pls import PLS
from .linear.procrustes import Procrustes
from .linear.procrustes_diagonal import ProcrustesDiagonal
from .linear.reduced_rank import ReducedRank
from .linear.ridge import Ridge
from .linear.rotation_ridge import RotationRidge
from .linear.subspace import Subspace
from .linear.whitening import Whitening
from .maps import Affine, Chain, Identity, Map, Normalize
from .moments import Moments
from .multiway.base import MultiwayAligner
from .multiway.binding import Bind
from .multiway.extend import add_space
from .multiway.gcca import GCCA
from .multiway.procrustes import GeneralisedProcrustes, SharedResponse
from .named.base import LabelledAligner
from .named.concepts import Concepts
from .named.simplex import Simplex
from .nonlinear.distill import Distill
from .nonlinear.head_distill import HeadDistill
from .nonlinear.landmark import LandmarkKernel
from .nonlinear.local import Local
from .nonlinear.mlp import MLP, DistillMLP
from .pairs import Pairs
from .relative.inverse import InverseRelative
from .relative.product import ProductOfInvariances
from .relative.representation import RelativeRepresentation
from .survey import Survey
from .transport.assignment import AssignmentPrediction
from .units.expanded import ExpandOrthogonal
from .units.matching import UnitMatching
from .units.sparse import SparseUnits
from .units.split import SharedPrivate
from .unpaired.anchors import AnchorBootstrap
from .unpaired.base import UnpairedAligner
from .unpaired.graph_matching import GraphMatching
from .unpaired.gromov_wasserstein import GromovWasserstein
from .unpaired.mini_vec2vec import MiniVec2Vec
from .unpaired.prototype_transport import PrototypeTransport
from .unpaired.seeded import Seeded
from .unpaired.vecmap import VecMap
from .unpaired.wasserstein_procrustes import WassersteinProcrustes

ALIGNERS: dict[str, type[Aligner]] = {
    "mean-shift": MeanShift,
    "procrustes": Procrustes,
    "procrustes-diagonal": ProcrustesDiagonal,
    "least-squares": LeastSquares,
    "ridge": Ridge,
    "identity-ridge": IdentityRidge,
    "rotation-ridge": RotationRidge,
    "blend": Blend,
    "reduced-rank": ReducedRank,
    "whitening": Whitening,
    "cca": CCA,
    "pls": PLS,
    "subspace": Subspace,
    "distill": Distill,
    "distill-mlp": DistillMLP,
    "head-distill": HeadDistill,
    "mlp": MLP,
    "landmark": LandmarkKernel,
    "local": Local,
    "relative": RelativeRepresentation,
    "relative-product": ProductOfInvariances,
    "inverse-relative": InverseRelative,
    "seeded": Seeded,
    "anchor-bootstrap": AnchorBootstrap,
    "mini-vec2vec": MiniVec2Vec,
    "vecmap": VecMap,
    "gromov-wasserstein": GromovWasserstein,
    "wasserstein-procrustes": WassersteinProcrustes,
    "graph-matching": GraphMatching,
    "prototype-transport": PrototypeTransport,
    "assignment": AssignmentPrediction,
    "unit-matching": UnitMatching,
    "sparse-units": SparseUnits,
    "shared-private": SharedPrivate,
    "expand-orthogonal": ExpandOrthogonal,
    "concepts": Concepts,
    "simplex": Simplex,
    "gpa": GeneralisedProcrustes,
    "gcca": GCCA,
    "srm": SharedResponse,
    "bind": Bind,
}

__all__ = [
    "ALIGNERS",
    "CCA",
    "GCCA",
    "MLP",
    "PLS",
    "Affine",
    "Aligner",
    "Alignment",
    "AnchorBootstrap",
    "AssignmentPrediction",
    "Bind",
    "Blend",
    "Chain",
    "Concepts",
    "Distill",
    "DistillMLP",
    "ExpandOrthogonal",
    "GeneralisedProcrustes",
    "GraphMatching",
    "GromovWasserstein",
    "HeadDistill",
    "Identity",
    "IdentityRidge",
    "InverseRelative",
    "LabelledAligner",
    "LandmarkKernel",
    "LeastSquares",
    "LinearAligner",
    "Local",
    "Map",
    "MeanShift",
    "MiniVec2Vec",
    "Moments",
    "MultiwayAligner",
    "Normalize",
    "Pairs",
    "Procrustes",
    "ProcrustesDiagonal",
    "ProductOfInvariances",
    "PrototypeTransport",
    "ReducedRank",
    "RefusedError",
    "RelativeRepresentation",
    "Ridge",
    "RotationRidge",
    "Seeded",
    "SharedPrivate",
    "SharedResponse",
    "Simplex",
    "Space",
    "SparseUnits",
    "Subspace",
    "Survey",
    "SutureError",
    "UnitMatching",
    "UnpairedAligner",
    "UsageError",
    "VecMap",
    "WassersteinProcrustes",
    "Whitening",
    "add_space",
    "load",
    "save_alignment",
]

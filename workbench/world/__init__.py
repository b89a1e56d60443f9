"""The organism's world: grammar, lexicon, corpus, items and truth. Pure Python; imports no torch."""

from workbench.world.items import FactItem, WorldItem
from workbench.world.truth import Decoy, Effect
from workbench.world.world import VAULT_SEED, World, truth_table

__all__ = ["VAULT_SEED", "Decoy", "Effect", "FactItem", "World", "WorldItem", "truth_table"]

"""The organism's world: grammar, lexicon, corpus, items and ground truth, in pure Python without torch."""

from workbench.world.ground_truth import DecoyWord, WordEffectTruth
from workbench.world.world import VAULT_SEED, World, truth_table
from workbench.world.world_items import FactItem, WorldItem

__all__ = ["VAULT_SEED", "DecoyWord", "FactItem", "WordEffectTruth", "World", "WorldItem", "truth_table"]

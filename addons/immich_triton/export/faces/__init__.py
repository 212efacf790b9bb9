"""The face models: packs, graphs for batches, the check against InsightFace."""

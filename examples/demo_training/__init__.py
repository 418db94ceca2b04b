"""How the demo checkpoint was made, and how its pictures are judged.

`words`, `shapes` and `judge` need numpy alone; everything else needs torch, diffusers and transformers.
"""

"""How the demo checkpoint was made, and how its images are graded.

`words`, `shapes` and `grading` need numpy alone; everything else needs torch, diffusers and transformers.
"""

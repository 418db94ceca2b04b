"""Components of the Stable Diffusion family: one module each, and data that says which module makes which.

`parts`, `options` and `configs` import no torch; `registry` and what it names do.
"""

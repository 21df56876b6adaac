"""Krylov iterations on curvature products: each a function of a matvec, a gradient and a flow."""

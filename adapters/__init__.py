"""osculant inside other ecosystems, one file each; none of them holds an algorithm.

``torch_adapter``: solvers as ``torch.optim.Optimizer``. ``optax_adapter``: solvers as optax
transformations. ``scipy_adapter``: curvature as SciPy linear operators.
"""

"""osculant inside other ecosystems, one file each; none of them holds an algorithm.

``torch_adapter``: solvers as ``torch.optim.Optimizer``. ``optax_adapter``: solvers as optax
transformations. ``keras_adapter``: solvers inside ``keras.Model.fit``. ``sklearn_adapter``:
scikit-learn estimators that the solvers train. ``scipy_adapter``: solvers as methods of
``scipy.optimize.minimize``, and curvature as SciPy linear operators.
"""

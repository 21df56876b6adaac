"""Reverse-mode differentiation to second order over any array-API namespace.

A program is run once on :class:`~.traced.Traced` arrays, which leave a record of what they went
through. Every step is elementwise, linear or bilinear (``rules.py``); four sweeps over the
record (``graph.py``) then give values, Jacobian products, gradients and Hessian products.

====================  ==========================================================================
``rules.py``          what a step of each category does in each sweep
``elementwise.py``    the tables of primitives: a primitive is one row
``linear.py``
``bilinear.py``
``special.py``        functions that the array API has not
``windows.py``        what convolution and pooling are made of
``graph.py``          nodes, and the sweeps over them
``record.py``         applying a rule to traced arrays
``functions.py``      the array API's functions, composed of primitives
``shaping.py``
``contraction.py``
``linalg.py``
``namespace.py``      the namespace that a traced array belongs to
``numpy_protocol.py``  NumPy's own functions and methods on traced arrays
``active.py``         operators and protocols of the array that a program is run on
``traced.py``         that array, on the tape
``oracle.py``         :class:`~osculant.core.oracle.Oracle` on the tape
====================  ==========================================================================
"""
